"""Verbs of blind studies: write the page that raters open, score what they send."""

import argparse
from pathlib import Path

from omnihuman.cli.parsing import Adder


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman study ...`."""
    parser = add(
        "make",
        _make,
        "write a folder of static files in which people choose among videos whose makers they do not know",
        "omnihuman study make study.yaml -o study",
        "omnihuman study make --system ours=renders/ours --system theirs=renders/theirs -o study",
    )
    parser.add_argument("description", type=Path, nargs="?", help="a study's YAML file (docs/howto/study.md)")
    parser.add_argument(
        "--system", type=_named_folder, action="append", default=[], help="NAME=FOLDER of videos, instead of a file"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the folder to publish; OUTPUT.key.json beside it is yours",
    )
    parser = add(
        "score",
        _score,
        "what the answers say: shares, strengths, intervals",
        "omnihuman study score answers/*.json --key study.key.json -o reports/study",
    )
    parser.add_argument("answers", type=Path, nargs="+", help="files that raters downloaded from the page")
    parser.add_argument("--key", type=Path, required=True, help="what `study make` wrote beside its folder")
    parser.add_argument("-o", "--output", type=Path, help="folder for result.json and result.html")


def _named_folder(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is no system: write NAME=FOLDER")
    return name, folder


def _make(args: argparse.Namespace) -> int:
    from omnihuman.errors import UserError
    from omnihuman.evaluation.study.description import Description, check, read_description
    from omnihuman.evaluation.study.make import PAGE, make

    if bool(args.description) == bool(args.system):
        raise UserError("study make: give either a study's file or --system NAME=FOLDER twice or more")
    if args.description:
        description = read_description(args.description)
    else:
        if len(dict(args.system)) < len(args.system):
            raise UserError("--system: one name stands there twice; give each system its own")
        description = Description(systems=dict(args.system))
        check(description, "--system")
    key = make(description, args.output)
    print(f"wrote {args.output / PAGE}: publish this folder, or send it")
    print(f"wrote {key}: keep it to yourself; `omnihuman study score ANSWERS... --key {key}` needs it")
    return 0


def _score(args: argparse.Namespace) -> int:
    from omnihuman.evaluation.study.key import Key
    from omnihuman.evaluation.study.report import table, write_result
    from omnihuman.evaluation.study.score import score

    result = score(args.answers, Key.load(args.key))
    print("\n".join(table(result)))
    if args.output:
        write_result(result, args.output)
    return 0
