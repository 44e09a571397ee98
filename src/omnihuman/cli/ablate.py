"""Verbs of ablations: what the arms are, run them, compare them."""

import argparse
from pathlib import Path

from omnihuman.cli.parsing import Adder


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman ablate ...`."""
    parser = add("plan", _plan, "show arms, claims, and which steps each runs", "omnihuman ablate plan audio_mix")
    _name_and_profile(parser)
    parser = add(
        "run",
        _run,
        "run every arm with every seed at the present commit; steps that runs share run once",
        "omnihuman ablate run audio_mix --parallel 2",
    )
    _name_and_profile(parser)
    parser.add_argument("--parallel", type=_at_least_one, default=1, help="runs side by side (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="also what has come to its end at this commit")
    parser = add("report", _report, "compare the arms and judge the claims", "omnihuman ablate report audio_mix")
    parser.add_argument("name", help="a file of conf/ablation")


def _name_and_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="a file of conf/ablation")
    parser.add_argument("--profile", default="demo", help="a file of conf/profile (default: %(default)s)")


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs, give 1 or more")
    return int(text)


def _plan(args: argparse.Namespace) -> int:
    from omnihuman.pipeline.arm_report import plan

    print(plan(Path.cwd(), args.name, args.profile))
    return 0


def _run(args: argparse.Namespace) -> int:
    from omnihuman.pipeline.arm_report import report
    from omnihuman.pipeline.parent_run import run_tracked_ablation

    results = run_tracked_ablation(Path.cwd(), args.name, args.profile, args.parallel, again=args.again)
    codes = [result.exit_code for result in results]
    if not any(codes):
        print(report(Path.cwd(), args.name))
        return 0
    return codes[0] if all(codes) else 3


def _report(args: argparse.Namespace) -> int:
    from omnihuman.pipeline.arm_report import report

    print(report(Path.cwd(), args.name))
    return 0
