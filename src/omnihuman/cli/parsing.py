"""How verbs join the parser."""

import argparse
from collections.abc import Callable

Verb = Callable[[argparse.Namespace], int]
"""Runs a verb and returns its exit code."""
Adder = Callable[..., argparse.ArgumentParser]
"""(name, verb, summary, example) to the parser of that verb."""


def group(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, summary: str) -> Adder:
    """A group of verbs, `omnihuman NAME VERB`."""
    parser = verbs.add_parser(name, help=summary, description=summary)
    return adder(parser.add_subparsers(metavar="VERB", required=True))


def adder(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> Adder:
    """Adds verbs to a parser, each with its help and an example."""

    def add(name: str, verb: Verb, summary: str, example: str = "") -> argparse.ArgumentParser:
        epilog = f"Example: {example}" if example else None
        parser = verbs.add_parser(name, help=summary, description=summary, epilog=epilog)
        parser.set_defaults(verb=verb)
        return parser

    return add
