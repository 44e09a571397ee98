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
    """Adds verbs to a parser, each with its help and examples."""

    def add(name: str, verb: Verb, summary: str, *examples: str) -> argparse.ArgumentParser:
        title = "Examples" if len(examples) > 1 else "Example"
        epilog = "\n  ".join([f"{title}:", *examples]) if examples else None
        form = argparse.RawDescriptionHelpFormatter
        parser = verbs.add_parser(name, help=summary, description=summary, epilog=epilog, formatter_class=form)
        parser.set_defaults(verb=verb)
        return parser

    return add


def share(text: str) -> tuple[int, int]:
    """`2/8`: the second of eight parts.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    number, _, count = text.partition("/")
    if not number.isdecimal() or not count.isdecimal() or not 1 <= int(number) <= int(count):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: write 2/8 for the second of eight")
    return int(number), int(count)


def at_least(smallest: int) -> Callable[[str], int]:
    """A whole number from `smallest` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {smallest}")
        return int(text)

    return number


def pixels(text: str) -> tuple[int, int]:
    """`512x768`: width and height.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    width, _, height = text.lower().partition("x")
    if not width.isdecimal() or not height.isdecimal() or not int(width) or not int(height):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512x768 for width and height in pixels")
    return int(width), int(height)
