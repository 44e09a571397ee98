"""A small encoded corpus with its params.yaml, on which real ranks train."""

import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from tests.tiny import CONFIG, write_encoded

from omnihuman.cli.probes import held_out_probe
from omnihuman.training.rank import MakeProbe, main

ROOT = Path(__file__).parents[1]
STAGE = "1_text_image"


def write_project(folder: Path, **changes: Any) -> Path:
    """A folder with `data` and params.yaml; `changes` are dotted keys with `__` for the dot."""
    if not (folder / "encoded").exists():
        write_encoded(folder / "encoded", [(True, True), (True, False), (False, False), (False, True)])
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["model"] = asdict(CONFIG) | {"rope_axes": list(CONFIG.rope_axes)}
    tree["training"] |= {
        "global_batch_size": 4, "warmup_steps": 2, "checkpoint_every_steps": 2, "log_every_steps": 1,
        "optimizer": "adamw",
    }  # fmt: skip
    tree["stages"][STAGE] |= {"steps": 6, "learning_rate": 1e-3}
    for name, value in changes.items():
        *path, last = name.split("__")
        node = tree
        for key in path:
            node = tree["stages"][STAGE] if key == "stage" else node[key]
        node[last] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    return folder


WIDE = {"model__width": 192, "model__rope_axes": [32, 32, 32]}
"""A model some of whose parameters ZeRO-3 divides at rest; below 100,000 elements it keeps them whole on each rank."""


def rank_arguments(folder: Path, name: str, stage: str = STAGE) -> list[str]:
    """Of a rank whose work is in `name`/work and whose model comes into `name`/models."""
    return [stage, "--encoded", "encoded", "--models", str(folder / name / "models"), "--work", str(work(folder, name))]


def work(folder: Path, name: str) -> Path:
    return folder / name / "work"


def losses(folder: Path, name: str) -> list[float]:
    """Of the steps finished so far."""
    path = work(folder, name) / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    steps = [line for line in map(json.loads, whole) if "loss" in line["metrics"]]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    return [step["metrics"]["loss"] for step in steps]


class Ranks:
    """Real processes of a stage, started as torchrun does but from a process that has imported all, in a second."""

    def __init__(
        self,
        folder: Path,
        num_ranks: int,
        name: str,
        stage: str = STAGE,
        max_file_bytes: int | None = None,
        make_probe: MakeProbe = held_out_probe,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["omnihuman.training.rank", "tests.rank_project"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = folder / f"{name}.log"
        self.log.write_text("")
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
        sizes = {"WORLD_SIZE": str(max(1, num_ranks)), "LOCAL_WORLD_SIZE": str(max(1, num_ranks))}
        numbers = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_ranks)]
        environments = [{**shared, **sizes, **number} for number in numbers] or [{}]
        arguments = rank_arguments(folder, name, stage)
        self.processes = [
            context.Process(target=_rank, args=(folder, self.log, environment, arguments, max_file_bytes, make_probe))
            for environment in environments
        ]
        for process in self.processes:
            process.start()

    def send(self, number: int) -> None:
        """A signal to all ranks."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def alive(self) -> bool:
        """Whether any rank is."""
        return any(process.is_alive() for process in self.processes)

    def codes(self) -> list[int | None]:
        """Exit codes, when all have ended; the others are ended as torchrun does when one has failed."""
        while self.alive():
            if any(process.exitcode for process in self.processes):
                time.sleep(1)
                self.send(signal.SIGKILL)
            time.sleep(0.05)
        for process in self.processes:
            process.join()
        return [process.exitcode for process in self.processes]

    def end_with(self, code: int) -> str:
        """Waits until all have ended with this exit code, and returns what they printed."""
        codes = self.codes()
        said = self.log.read_text()
        slow = {code, -signal.SIGKILL} if code == 2 else {code}  # a rank that has not yet met the mistake is ended
        assert codes[0] == code and set(codes) <= slow, f"{codes}: {said[-3000:]}"
        return said


def _rank(
    folder: Path,
    log: Path,
    environment: dict[str, str],
    arguments: list[str],
    max_file_bytes: int | None,
    make_probe: MakeProbe,
) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    torch.set_num_threads(1)
    sys.exit(main(arguments, make_probe))
