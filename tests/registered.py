"""A checkout whose graph copies what a test has made, with real DVC and runs in real MLflow."""

import json
import subprocess
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml
from dvc.repo import Repo
from tests.tiny import DESCRIPTION, random_model

from omnihuman.model.checkpoint import ModelDescription, save_model
from omnihuman.registry.aliases import versions
from omnihuman.registry.store import connect
from omnihuman.storage.files import file_sha256
from omnihuman.tracking.record import RunRecord

ROOT = Path(__file__).parents[1]
GRAPH = {
    "stages": {
        "encode": {
            "cmd": "mkdir -p data && cp -r made/encoded data/",
            "deps": ["made/encoded"],
            "outs": ["data/encoded"],
        },
        "train": {
            "foreach": {"3_pose": None},
            "do": {
                "cmd": "mkdir -p models runs && cp -r made/model models/${key} && cp made/run.json runs/${key}.json",
                "deps": ["data/encoded", "made/model", "made/run.json"],
                "params": ["seed", "stages.${key}"],
                "outs": ["models/${key}", "runs/${key}.json"],
            },
        },
        "evaluate": {
            "cmd": "mkdir -p reports && cp made/evaluation.json reports/",
            "deps": ["data/encoded", "models/3_pose", "made/evaluation.json"],
            "params": ["seed", "evaluate", "sampling"],
            "outs": ["reports/evaluation.json"],
        },
    }
}  # fmt: skip
"""The names of dvc.yaml's steps and outputs, with steps that copy what a test has made."""


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def finish_run(root: Path, seed: int, measured: dict[str, Any], description: ModelDescription = DESCRIPTION) -> None:
    """Puts a model with a run in MLflow and figures in place, and runs the graph with DVC."""
    made = root / "made"
    (made / "model").mkdir(parents=True, exist_ok=True)
    save_model(made / "model", random_model(seed), description)
    (made / "evaluation.json").write_text(json.dumps(measured))
    experiment = connect().get_experiment_by_name("omnihuman")
    assert experiment
    run_id = connect().create_run(experiment.experiment_id, run_name="3_pose").info.run_id
    connect().set_terminated(run_id)
    sha256 = file_sha256(made / "model/model.safetensors")
    RunRecord("3_pose", run_id, experiment.experiment_id, "", sha256, "2026").save(made / "run.json")
    repro(root)


def repro(root: Path) -> None:
    """In this process: starting DVC takes longer than the steps."""
    with chdir(root), Repo() as repo:
        repo.reproduce()


def trusting(_: int) -> None:
    """For tests of what follows the smoke test."""


def champion() -> int | None:
    return next((row.version for row in versions() if "champion" in row.aliases), None)


def set_param(root: Path, section: str, key: str, value: int) -> None:
    params = yaml.safe_load((root / "params.yaml").read_text())
    params[section][key] = value
    (root / "params.yaml").write_text(yaml.safe_dump(params))
