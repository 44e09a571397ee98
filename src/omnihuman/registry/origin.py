"""What a trained model was made from: code, data, parameters and runs, read from a checkout and checked."""

import hashlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omnihuman.config.load import load_params, read_yaml
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256
from omnihuman.storage.work import content_key
from omnihuman.tracking.record import RUNS, RunRecord
from omnihuman.tracking.values import folder_md5

PARAMS = Path("params.yaml")
LOCK = Path("dvc.lock")
ENCODED = "data/encoded"
EVALUATION = "reports/evaluation.json"
_CODE = ("--", ".", f":!{PARAMS}", f":!{LOCK}")
"""Git's words for all that no run changes."""
_DIFF = (
    "diff", "--relative", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=none",
    "--src-prefix=a/", "--dst-prefix=b/", "HEAD",
)  # fmt: skip
"""Settings of the user's git do not change what these print."""
_RERUN = "run `dvc repro`, then register again"


@dataclass(frozen=True)
class Origin:
    """Everything that a version's tags say about where it comes from."""

    weights_sha256: str
    description_sha256: str
    """Of model.json."""
    params_sha256: str
    dvc_lock_sha256: str
    data_md5: str
    """DVC's digest of the encoded clips, data/encoded."""
    evaluation_sha256: str
    evaluation_set: str
    """Digest of what the figures were measured on: encoded clips, seed and settings of the evaluation."""
    git_commit: str
    dirty: bool
    """Whether tracked files other than dvc.lock and params.yaml differed from the commit."""
    stage: str
    run_ids: dict[str, str]
    """MLflow run by step, as runs/*.json record them; empty where no run was recorded."""

    def content_key(self) -> str:
        """Equal for equal weights with equal figures, which are one version."""
        return content_key(
            weights=self.weights_sha256, description=self.description_sha256, evaluation=self.evaluation_sha256
        )

    def tags(self) -> dict[str, str]:
        """As MLflow keeps it."""
        values = {
            key: json.dumps(value) if not isinstance(value, str) else value for key, value in asdict(self).items()
        }
        return {**values, "content_key": self.content_key()}

    @classmethod
    def from_tags(cls, tags: dict[str, str]) -> "Origin":
        """The reverse of `tags`.

        Raises:
            UserError: a tag is missing: the version was not registered by us.
        """
        missing = [field.name for field in fields(cls) if field.name not in tags]
        if missing:
            raise UserError(f"the version lacks the tags {', '.join(missing)}: it was not made by `registry register`")
        values: dict[str, Any] = {field.name: tags[field.name] for field in fields(cls)}
        return cls(**values | {key: json.loads(values[key]) for key in ("dirty", "run_ids")})


@dataclass(frozen=True)
class Trained:
    """A trained and evaluated model of a checkout."""

    folder: Path
    """With model.safetensors and model.json."""
    origin: Origin
    figures: dict[str, Any]
    """reports/evaluation.json."""
    changed: tuple[str, ...]
    """Tracked files that differ from the commit, without dvc.lock and params.yaml."""
    changes: bytes
    """Their difference to the commit, or why that is unknown; empty for a clean checkout."""


def read_trained(root: Path) -> Trained:
    """The model of the last stage with all that belongs to it.

    Raises:
        UserError: nothing is trained or evaluated yet, or what lies there is not what dvc.lock records.
    """
    stage = list(load_params(root / PARAMS).stages)[-1]
    folder = root / "models" / stage
    for path, remedy in (
        (folder / "model.safetensors", "no model is trained yet: run `dvc repro`"),
        (folder / "model.json", "no model is trained yet: run `dvc repro`"),
        (root / EVALUATION, "the model is not evaluated yet: run `dvc repro`"),
        (root / LOCK, "nothing says what the model was made from: run `dvc repro`"),
    ):
        if not path.is_file():
            raise UserError(f"{path} is missing, {remedy}")
    steps = read_yaml(root / LOCK)["stages"]
    data = _check_recorded(root, steps, stage)
    commit, changed, changes = _checkout(root)
    params = read_yaml(root / PARAMS)
    weights_sha256 = file_sha256(folder / "model.safetensors")
    origin = Origin(
        weights_sha256=weights_sha256,
        description_sha256=file_sha256(folder / "model.json"),
        params_sha256=file_sha256(root / PARAMS),
        dvc_lock_sha256=file_sha256(root / LOCK),
        data_md5=data,
        evaluation_sha256=file_sha256(root / EVALUATION),
        evaluation_set=evaluation_set(data, params),
        git_commit=commit,
        dirty=bool(changes),
        stage=stage,
        run_ids=_run_ids(root, stage, weights_sha256),
    )
    figures = json.loads((root / EVALUATION).read_text(encoding="utf-8"))
    return Trained(folder, origin, figures, changed, changes)


def evaluation_set(data_md5: str, params: dict[str, Any]) -> str:
    """Digest of what figures are measured on; `params` is the tree of params.yaml."""
    return content_key(data=data_md5, seed=params.get("seed"), evaluate=params.get("evaluate"))


def _check_recorded(root: Path, steps: dict[str, Any], stage: str) -> str:
    """Compares disk, params.yaml and dvc.lock, and returns the digest of the encoded clips."""
    model, params = f"models/{stage}", read_yaml(root / PARAMS)
    for step in (f"train@{stage}", "evaluate"):
        if step not in steps:
            raise UserError(f"{root / LOCK} has no record of the step {step}: {_RERUN}")
        for key, value in steps[step].get("params", {}).get(str(PARAMS), {}).items():
            if _at(params, key) != value:
                raise UserError(f"{root / PARAMS}: {key} was changed after the step {step}: {_RERUN}")
    train, evaluate = steps[f"train@{stage}"], steps["evaluate"]
    recorded = [_digest(train["outs"], model), _digest(evaluate["deps"], model)]
    if {folder_md5(root / model)} != set(recorded):
        raise UserError(f"{root / model} is not what dvc.lock records as trained and evaluated: {_RERUN}")
    if _file_md5(root / EVALUATION) != _digest(evaluate["outs"], EVALUATION):
        raise UserError(f"{root / EVALUATION} is not what dvc.lock records: {_RERUN}")
    data = _digest(train["deps"], ENCODED)
    if not data or data != _digest(evaluate["deps"], ENCODED):
        raise UserError(f"the model was trained on other data than it was evaluated on: {_RERUN}")
    return data


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _digest(entries: list[dict[str, Any]], path: str) -> str:
    return next((entry["md5"] for entry in entries if entry["path"] == path), "")


def _at(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _checkout(root: Path) -> tuple[str, tuple[str, ...], bytes]:
    """The commit, the tracked files that differ from it, and how; without git the last says so."""
    try:
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        names = _git(root, *_DIFF, "--name-only", "-z", *_CODE)  # -z: names as they are, without quotes
        changes = _git(root, *_DIFF, *_CODE)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode(errors="replace") or str(error)
        return "unknown", (), f"the code's version is unknown: {reason.strip()}\n".encode()
    return commit, tuple(map(os.fsdecode, names.split(b"\0")[:-1])), changes


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True).stdout


def _run_ids(root: Path, stage: str, weights_sha256: str) -> dict[str, str]:
    """MLflow runs by step, as far as steps have recorded them."""
    records = [RunRecord.load(path) for path in sorted((root / RUNS).glob("*.json"))]
    for record in records:
        if record.step in (stage, "evaluate") and record.sha256 != weights_sha256:
            raise UserError(f"{root / RUNS / record.step}.json is the run of other weights: {_RERUN}")
    return {record.step: record.run_id for record in records}
