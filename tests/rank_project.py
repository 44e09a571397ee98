"""A small encoded corpus with its params.yaml, on which real ranks train."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from tests.tiny import CONFIG, write_encoded

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


def rank_command(num_ranks: int, work: Path, models: Path, stage: str = STAGE) -> list[str]:
    """The command of a stage: alone, or under torchrun with `num_ranks` processes."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks), "-m"] if num_ranks else []
    places = ["--encoded", "encoded", "--models", str(models), "--work", str(work)]
    return [sys.executable, "-m", *launcher, "omnihuman.training.rank", stage, *places]


def rank_environment(**more: str) -> Mapping[str, str]:
    """Of ranks: one thread each, this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **more}


def train(folder: Path, num_ranks: int, name: str) -> subprocess.CompletedProcess[str]:
    """Trains a stage with its work in `name`/work and its model in `name`/models."""
    command = rank_command(num_ranks, folder / name / "work", folder / name / "models")
    return subprocess.run(
        command, cwd=folder, env=rank_environment(), capture_output=True, text=True, check=False, timeout=300
    )
