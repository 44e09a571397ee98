"""A rank with what concerns a launcher: it meets others by gloo, writes metrics, saves on TERM, goes on, publishes.

Run as `-m tests.launched_rank STAGE --encoded DIR --models DIR --work DIR`; the stage's name is what it shall do.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

NUM_STEPS = {"short": 5, "middle": 100, "long": 10_000}


def main() -> int:
    """Exit code as of a real rank: 0, 2 for the user's mistake, 143 after TERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    for name in ("encoded", "models", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    if args.stage == "mistaken":
        print("error: the stage is mistaken", file=sys.stderr, flush=True)
        return 2
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGTERM, ask)
    subprocess.Popen(["sleep", "600"], start_new_session=True)  # what a careless loader leaves behind
    dist.init_process_group("gloo")
    first = int(dist.get_rank() == 0)
    saved = args.work / "saved"
    step = int(saved.read_text()) if saved.is_file() else 0
    started = step
    while step < NUM_STEPS[args.stage]:
        leaving = torch.tensor([float(bool(asked)), 1.0])
        dist.all_reduce(leaving)
        if leaving[0]:
            if first:
                saved.write_text(str(step))
            return 143
        step += 1
        if first:
            entry = {"step": step, "metrics": {"loss": 1.0 / step, "ranks": leaving[1].item(), "from": started}}
            with (args.work / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(entry) + "\n")
        time.sleep(0.05)
    if first:
        args.models.joinpath(args.stage).mkdir(parents=True, exist_ok=True)
        args.models.joinpath(args.stage, "ranks").write_text(f"{dist.get_world_size()} {os.environ['OMNIHUMAN_JOB']}")
    dist.barrier()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a group of processes half of which have gone would wait for itself
