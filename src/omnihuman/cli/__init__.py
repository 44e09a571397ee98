"""The command line: only wiring. Everything heavy is imported inside the verb that needs it."""

import argparse
import logging
import os
import select
import signal
import sys
from collections.abc import Sequence

from omnihuman.cli import (
    ablate,
    batch,
    chain,
    checkpoint,
    config,
    data,
    evaluate,
    model,
    registry,
    services,
    study,
    train,
)
from omnihuman.cli.parsing import adder, group
from omnihuman.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code.

    0 all good; 1 nothing could be done, a comparison failed, or a defect of ours; 2 the user's mistake; 3 partly done.
    """
    args = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("omnihuman").setLevel(logging.INFO)
    try:
        code = args.verb(args)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write at the end goes nowhere
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _nobody_reads() -> bool:
    """Whether who read our output has seen enough, as `head` has."""
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omnihuman",
        description="Train, compare, release and run your own OmniHuman.",
        epilog="Exit codes: 0 all good; 1 nothing could be done, a comparison failed, or a defect of ours; 2 your input"
        " or configuration is wrong; 3 partly done.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    config.add_verbs(group(verbs, "config", "compose and show params.yaml"))
    data.add_verbs(group(verbs, "data", "the steps from raw videos to encoded clips"))
    train.add_verbs(adder(verbs))
    evaluate.add_verbs(adder(verbs))
    model.add_verbs(adder(verbs))
    checkpoint.add_verbs(group(verbs, "checkpoint", "import, export, compare a base; consolidate, reshard a stage"))
    chain.add_verbs(adder(verbs))
    ablate.add_verbs(group(verbs, "ablate", "compare settings: arms that train only where they differ"))
    study.add_verbs(group(verbs, "study", "blind studies: people choose among videos whose makers they do not know"))
    registry.add_verbs(group(verbs, "registry", "versions of the model: register, promote, roll back, list"))
    registry.add_lineage(adder(verbs))
    batch.add_verbs(group(verbs, "batch", "render many jobs with one pinned version of the model"))
    services.add_verbs(adder(verbs))
    return parser
