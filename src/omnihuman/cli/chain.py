"""Verbs that run the whole chain."""

import argparse

from omnihuman.cli.parsing import Adder


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman demo`."""
    parser = add(
        "demo",
        _demo,
        "compose a profile and run the whole chain",
        "omnihuman demo --data ~/videos collect.licence=own collect.consent_basis=contract collect.rights_holder=us",
    )
    parser.add_argument(
        "--data", help="own videos instead of the drawn corpus: a folder, a list or table, or s3://bucket/prefix"
    )
    parser.add_argument("--profile", default="demo", help="a file of conf/profile (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="a dotted key and its value as YAML")


def _demo(args: argparse.Namespace) -> int:
    from omnihuman.pipeline.demo import demo

    data = [f"collect.source={args.data}"] if args.data else []
    return demo(args.profile, [*data, *args.overrides])
