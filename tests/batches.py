"""Jobs, versions of the model and ways to submit, for the tests of batches."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.tiny import DESCRIPTION, random_model

from omnihuman.config.load import load_params
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.model.checkpoint import save_model
from omnihuman.registry.versions import ModelVersion
from omnihuman.rendering.report import Report
from omnihuman.rendering.submit import Batch, enter, prepare, run
from omnihuman.storage.files import file_sha256

ROOT = Path(__file__).parents[1]
PARAMS = replace(
    load_params(ROOT / "params.yaml"), sampling=Sampling(num_steps=2, guidance_audio=2.0), render=Render(upscale=1)
)


def random_version(folder: Path, number: int) -> ModelVersion:
    folder.mkdir(parents=True)
    save_model(folder, random_model(seed=number), DESCRIPTION)
    return ModelVersion("omnihuman", number, "", file_sha256(folder / "model.safetensors"), folder, ("champion",))


def write_jobs(folder: Path, *jobs: dict[str, Any] | str) -> Path:
    lines = [job if isinstance(job, str) else json.dumps({"audio": "s.wav", **job}) for job in jobs]
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def prepared(jobs: Path, output: Path, version: ModelVersion) -> Batch:
    return prepare(jobs, output, PARAMS, None, lambda reference: version)


def submitted(jobs: Path, output: Path, version: ModelVersion, workers: int = 1, lease: float = 60.0) -> Report:
    batch = prepared(jobs, output, version)
    enter(batch)
    return run(batch, workers, lease)


def states(report: Report) -> list[str]:
    return [outcome.state for outcome in report.outcomes]


def moments(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
