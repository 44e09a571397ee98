"""Verbs of the registry: which versions there are, who is champion, and what a video or a version was made from."""

import argparse
import json
from pathlib import Path

from omnihuman.cli.parsing import Adder


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman registry ...`."""
    parser = add("register", _register, "register the trained and evaluated model as the candidate")
    parser.add_argument("--allow-dirty", action="store_true", help="in spite of uncommitted code, which is recorded")
    parser = add(
        "promote",
        _promote,
        "make a version champion: gate, a clip rendered in a clean process, then the alias",
        'omnihuman registry promote candidate --override "first model on the new data"',
    )
    parser.add_argument("version", nargs="?", default="candidate", help="a number or an alias (default: %(default)s)")
    parser.add_argument("--override", default="", metavar="REASON", help="promote though the gate fails; recorded")
    add("rollback", _rollback, "make the previous champion champion again")
    add("list", _list, "all versions with aliases, runs and figures")
    parser = add("delete", _delete, "delete a version that is neither champion nor the one before")
    parser.add_argument("version", help="a number or an alias")


def add_lineage(add: Adder) -> None:
    """Adds `omnihuman lineage`."""
    parser = add(
        "lineage",
        _lineage,
        "what a rendered video or a version was made from, and whether it was changed since (exit code 3)",
        "omnihuman lineage renders/demo.mp4",
    )
    parser.add_argument("subject", metavar="FILE|VERSION", help="a rendered video, a version's number or an alias")
    parser.add_argument("--json", action="store_true", help="everything as JSON, with all parameters")


def _register(args: argparse.Namespace) -> int:
    from omnihuman.registry.register import register

    version = register(Path.cwd(), allow_dirty=args.allow_dirty)
    run = f"run {version.run_id}" if version.run_id else "no run recorded"
    print(f"version {version.version} of {version.name} is the candidate: weights {version.sha256[:12]}, {run}")
    return 0


def _promote(args: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.registry.aliases import promote

    done = promote(args.version, load_params().gate, Path.cwd(), override=args.override)
    print("\n".join(done.report.lines()))
    if not done.moved:
        print(f"version {done.version} is the champion already")
        return 0
    print(f"version {done.version} is the champion" + (f", before it {done.previous}" if done.previous else ""))
    return 0


def _rollback(_: argparse.Namespace) -> int:
    from omnihuman.registry.aliases import rollback

    before, restored = rollback()
    print(f"version {restored} is the champion again, {before} stepped down")
    return 0


def _list(_: argparse.Namespace) -> int:
    from omnihuman.registry.aliases import versions

    rows = versions()
    if not rows:
        print("no version is registered yet: run `omnihuman registry register`")
        return 0
    header = ("version", "aliases", "run", *rows[0].figures, "registered (UTC)")
    table = [header] + [
        (
            str(row.version),
            ",".join(row.aliases) or "-",
            row.run_id[:12] or "-",
            *row.figures.values(),
            f"{row.created:%Y-%m-%d %H:%M}",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return 0


def _delete(args: argparse.Namespace) -> int:
    from omnihuman.registry.aliases import delete

    print(f"version {delete(args.version)} is deleted")
    return 0


def _lineage(args: argparse.Namespace) -> int:
    from omnihuman.registry.lineage import lineage, lines

    found = lineage(args.subject)
    print(json.dumps(found.as_json(), indent=2) if args.json else "\n".join(lines(found)))
    return 3 if found.video and not found.video.unchanged else 0
