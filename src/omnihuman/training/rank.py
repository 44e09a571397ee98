"""One rank of a stage: `python -m omnihuman.training.rank STAGE --encoded DIR --models DIR --work DIR`.

Runs in the checkout, under torchrun's environment or alone, and reads params.yaml. The first rank appends a line of
JSON per finished step to WORK/metrics.jsonl, prints what is the user's to mend, and publishes the model.

Exit codes: 0; 1 a defect of ours; 2 the user's input or configuration; 143 after a SIGTERM, everything saved: start the
same command again. torchrun turns each but 0 into 1, so the first rank leaves its own in WORK/exit_code.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from omnihuman.config.load import PARAMS, load_params, load_section
from omnihuman.config.schema.root import Params
from omnihuman.config.schema.stage import Stage
from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.training.fit import StageRun
from omnihuman.training.probes import Probe
from omnihuman.training.ranks import Ranks
from omnihuman.training.run import check_start, train_stage
from omnihuman.training.saving import PREEMPTED, Preempted

MakeProbe = Callable[[Stage, Params, Path], Probe | None]


class MetricsFile:
    """Appends values that are not yet in it, so that what a resumed run tells again does no harm."""

    def __init__(self, path: Path) -> None:
        whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.is_file() else []
        entries = map(json.loads, whole)
        self._last: dict[str, int] = {name: entry["step"] for entry in entries for name in entry["metrics"]}
        path.write_bytes(b"".join(line + b"\n" for line in whole))  # without half a line of a killed run
        self._file = path.open("a", encoding="utf-8")

    def add(self, step: int, metrics: dict[str, float]) -> None:
        """Values of one finished step; those of each name come in the order of the steps."""
        new = {name: value for name, value in metrics.items() if step > self._last.get(name, 0)}
        if new:
            self._last |= dict.fromkeys(new, step)
            self._file.write(json.dumps({"step": step, "metrics": new}) + "\n")
            self._file.flush()


def main(arguments: list[str] | None = None, make_probe: MakeProbe | None = None) -> int:
    """Runs this rank and returns its exit code.

    Args:
        make_probe: of the stage and everything configured, with the folder of encoded clips.
    """
    parser = argparse.ArgumentParser(prog="python -m omnihuman.training.rank")
    parser.add_argument("stage")
    for name in ("encoded", "models", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(arguments)
    ranks = Ranks.from_environment()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("omnihuman").setLevel(logging.INFO if ranks.first else logging.ERROR)
    if ranks.first:
        (args.work / "exit_code").unlink(missing_ok=True)
    code = _run(args, ranks, make_probe)
    if ranks.first and args.work.is_dir():
        with publish(args.work / "exit_code") as temporary:
            temporary.write_text(f"{code}\n")
    return code


def _run(args: argparse.Namespace, ranks: Ranks, make_probe: MakeProbe | None) -> int:
    connected = False
    try:
        params = load_params()
        stage = load_section(PARAMS, f"stages.{args.stage}")
        run = StageRun(args.stage, stage, params.training, params.model, params.diffusion, params.training_seed)
        check_start(run, args.encoded, args.models, params.compute, ranks)
        args.work.mkdir(parents=True, exist_ok=True)
        report = MetricsFile(args.work / "metrics.jsonl").add if ranks.first else None
        if ranks.size > 1 or params.compute.strategy != "single":
            ranks.connect()
            connected = True
        probe = make_probe(stage, params, args.encoded) if make_probe else None
        train_stage(run, args.encoded, args.models, args.work, report, params.compute, ranks, probe)
    except UserError as error:
        # What all ranks can know before they meet is said once; later a rank may be the only one to fail.
        if ranks.first or connected:
            where = "" if ranks.first else f"rank {ranks.rank}: "
            print(f"error: {where}{error}", file=sys.stderr, flush=True)
        return 2
    except Preempted:
        return PREEMPTED
    if connected:
        ranks.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
