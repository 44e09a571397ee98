"""Verbs of batch rendering: many jobs with one pinned version of the model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.cli.parsing import Adder

if TYPE_CHECKING:
    from omnihuman.registry.versions import ModelVersion
    from omnihuman.rendering.submit import Batch

_RENDERS = Path("renders")
_CODES = "exit code 3 when only a part could be rendered, 1 when nothing could"


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman batch ...`."""
    parser = add(
        "submit",
        _submit,
        f"render a file of jobs (JSON Lines) with one pinned version; what is done already is skipped; {_CODES}",
        "omnihuman batch submit jobs.jsonl --output renders/today --workers 2",
    )
    parser.add_argument(
        "jobs", type=Path, help="one JSON object a line: image, audio, pose, image_pose, text, seed, output, parameters"
    )
    parser.add_argument("--output", type=Path, help="folder of the videos (default: renders/NAME of the jobs' file)")
    parser.add_argument("--model", help="a version or alias (default: champion, or what an unended batch began with)")
    parser.add_argument("--dry-run", action="store_true", help="list what would be rendered; write nothing")
    parser.add_argument("--no-wait", action="store_true", help="leave the rendering to `omnihuman batch work`")
    _add_worker_options(parser)
    summary = f"render what is open in a folder's batch; {_CODES}"
    parser = add("work", _work, summary, "omnihuman batch work renders/today")
    parser.add_argument("folder", type=Path, help="the output folder of a submitted batch")
    _add_worker_options(parser)
    parser = add("status", _status, "a folder's batch as a table", "omnihuman batch status renders/today")
    parser.add_argument("folder", type=Path, help="the output folder of a submitted batch")
    parser = add("redrive", _redrive, "let dead jobs be tried again", "omnihuman batch redrive renders/today")
    parser.add_argument("folder", type=Path, help="the output folder of a submitted batch")


def _add_worker_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=_positive, default=1, help="processes that render (default: %(default)s)")
    parser.add_argument(
        "--together",
        type=_positive,
        default=1,
        help="videos that each process makes at the same time, their segments in common batches (default: %(default)s)",
    )
    parser.add_argument(
        "--lease",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="after which a silent worker is taken for lost (default: %(default)g)",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1.0 <= seconds <= 86_400.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 86400")
    return seconds


def _submit(args: argparse.Namespace) -> int:
    from omnihuman.config.load import load_params
    from omnihuman.rendering.processes import interrupt_on_term
    from omnihuman.rendering.submit import enter, prepare

    interrupt_on_term()
    folder = args.output or _RENDERS / args.jobs.stem
    batch = prepare(args.jobs, folder, load_params(), args.model, _resolve)
    pinned, count = batch.manifest.model, len(batch.manifest.items)
    announced = f"{pinned.name} version {pinned.version} ({pinned.sha256[:12]}), {count} video{'s' * (count != 1)}"
    if args.dry_run:
        print(announced)
        return _list_open(batch)
    enter(batch)
    print(f"{announced} into {folder}", flush=True)
    if args.no_wait:
        print(f"submitted; `omnihuman batch work {folder}` renders them")
        return 0
    return _run(batch, args)


def _work(args: argparse.Namespace) -> int:
    from omnihuman.rendering.processes import interrupt_on_term
    from omnihuman.rendering.submit import reopen

    interrupt_on_term()
    return _run(reopen(args.folder, _resolve), args)


def _resolve(reference: str) -> "ModelVersion":
    from omnihuman.registry.versions import resolve

    return resolve(reference)


def _run(batch: "Batch", args: argparse.Namespace) -> int:
    from omnihuman.rendering.report import PAGE, counts
    from omnihuman.rendering.submit import run

    report = run(batch, args.workers, args.lease, args.together)
    for outcome in report.outcomes:
        if outcome.state != "done":
            print(f"{outcome.state}: {', '.join(outcome.outputs)}: {outcome.error}")
    print(f"{counts(outcome.state for outcome in report.outcomes)}; {batch.folder / PAGE}")
    if report.exit_code:
        print(f"`omnihuman batch redrive {batch.folder}` lets dead jobs be tried again")
    return report.exit_code


def _list_open(batch: "Batch") -> int:
    from omnihuman.rendering.manifest import finished_videos

    finished = finished_videos(batch.folder, (item.id for item in batch.manifest.items))
    for item in batch.manifest.items:
        verb = "is done already" if item.id in finished else "would be rendered"
        lines = ", ".join(map(str, item.lines))
        print(f"line {lines}: {', '.join(item.outputs)} {verb}")
    print(f"{len(batch.manifest.items) - len(finished)} to render, {len(finished)} done already; nothing was written")
    return 0


def _status(args: argparse.Namespace) -> int:
    from omnihuman.rendering.ledger import Ledger
    from omnihuman.rendering.manifest import Manifest
    from omnihuman.rendering.report import counts, table

    manifest = Manifest.load(args.folder)
    states = Ledger(args.folder).items()
    print("\n".join(table(manifest, states)))
    print(counts(state.state for state in states))
    return 0


def _redrive(args: argparse.Namespace) -> int:
    from omnihuman.rendering.ledger import Ledger
    from omnihuman.rendering.manifest import Manifest

    Manifest.load(args.folder)
    count = Ledger(args.folder).redrive()
    print(
        f"{count} dead {'job is' if count == 1 else 'jobs are'} pending"
        + (f"; `omnihuman batch work {args.folder}` renders them" if count else "")
    )
    return 0
