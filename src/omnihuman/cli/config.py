"""Verbs of the configuration."""

import argparse

from omnihuman.cli.parsing import Adder
from omnihuman.errors import UserError


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman config ...`."""
    parser = add(
        "compose",
        _compose,
        "write params.yaml from conf/, a profile and overrides",
        "omnihuman config compose --profile demo groups.recipe=paper_last stages.2_audio.steps=600",
    )
    parser.add_argument("--profile", help="a file of conf/profile (default: demo)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when params.yaml is stale")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="a dotted key and its value as YAML")
    parser = add("show", _show, "print params.yaml with every default", "omnihuman config show stages.2_audio")
    parser.add_argument("section", nargs="?", help="a dotted part of it")


def _compose(args: argparse.Namespace) -> int:
    from omnihuman.config.compose import compose, dump, stale_keys
    from omnihuman.config.load import PARAMS
    from omnihuman.storage.files import publish

    if args.check:
        if args.overrides or args.profile:
            raise UserError("--check composes what params.yaml records; give it no profile and no key=value")
        stale = stale_keys()
        if stale:
            raise UserError("\n".join([f"{PARAMS} is stale; run `omnihuman config compose` again:", *stale]))
        return 0
    text = dump(compose(args.profile or "demo", args.overrides))
    with publish(PARAMS) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return 0


def _show(args: argparse.Namespace) -> int:
    from dataclasses import asdict, is_dataclass

    import yaml

    from omnihuman.config.load import PARAMS, load_params, load_section

    part = load_section(PARAMS, args.section) if args.section else load_params()
    if isinstance(part, dict):
        part = {name: asdict(entry) for name, entry in part.items()}
    tree = asdict(part) if is_dataclass(part) and not isinstance(part, type) else part
    print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).removesuffix("...\n"), end="")
    return 0
