"""From a trained checkout to a version in the registry."""

import importlib.metadata
import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnihuman.errors import UserError
from omnihuman.registry.origin import EVALUATION, LOCK, PARAMS, Trained, read_trained
from omnihuman.registry.store import CANDIDATE, MODEL_NAME, connect, exclusive, registered_model
from omnihuman.registry.versions import ModelVersion, as_version
from omnihuman.tracking.server import prepare

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
    from mlflow.models import ModelSignature

_CODE = Path(__file__).with_name("pyfunc_model.py")


def register(root: Path, *, allow_dirty: bool = False) -> ModelVersion:
    """Registers the trained model of a checkout and gives it the alias `candidate`.

    Equal weights with equal figures are registered once: a second call finds the version of the first.

    Args:
        root: a checkout with models/, reports/evaluation.json, params.yaml and dvc.lock of one finished run.
        allow_dirty: register in spite of uncommitted code, which is recorded, with its difference to the commit.

    Raises:
        UserError: nothing is trained or evaluated, files are not what dvc.lock records, code is uncommitted, or the
            server does not answer.
    """
    trained = read_trained(root)
    if trained.changes and not allow_dirty:
        raise UserError(
            f"{root.resolve()}: {_uncommitted(trained)}\ncommit the code first, so that the model can be made"
            " again, or give --allow-dirty, which is recorded"
        )
    client = connect()
    with exclusive("register", timeout_seconds=600.0):
        version = _known(client, trained) or _create(client, root, trained)
        client.set_registered_model_alias(MODEL_NAME, CANDIDATE, str(version.version))
    return as_version(client, version)


def _uncommitted(trained: Trained) -> str:
    if not trained.changed:
        return trained.changes.decode(errors="replace").strip()
    return f"uncommitted changes in {', '.join(trained.changed[:5])}{' ...' * (len(trained.changed) > 5)}"


def _known(client: "MlflowClient", trained: Trained) -> "RegisteredVersion | None":
    key = trained.origin.content_key()
    found = client.search_model_versions(f"name='{MODEL_NAME}' and tags.content_key='{key}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _create(client: "MlflowClient", root: Path, trained: Trained) -> "RegisteredVersion":
    """Uploads first and creates the version last, with all its tags, so that a kill leaves no half version."""
    origin = trained.origin
    run_id = origin.run_ids.get(origin.stage)
    model_id = _upload(client, root, trained, run_id)
    if registered_model(client) is None:
        client.create_registered_model(MODEL_NAME, description="A person's picture and sound become a video of them.")
    return client.create_model_version(
        MODEL_NAME,
        source=f"models:/{model_id}",
        run_id=run_id,
        model_id=model_id,
        tags={**origin.tags(), "evaluation": json.dumps(trained.figures)},
        description=_description(trained),
    )


def _upload(client: "MlflowClient", root: Path, trained: Trained, run_id: str | None) -> str:
    """Stores the model's files and returns the id of MLflow's logged model."""
    import mlflow

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifacts = _artifacts(root, trained, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for type hints, which cannot say `bytes` of a file
            mlflow.pyfunc.save_model(
                folder / "model",
                python_model=_CODE,
                artifacts={path.name: str(path) for path in artifacts},
                signature=_signature(),
                pip_requirements=[f"omnihuman=={importlib.metadata.version('omnihuman')}"],
            )
        model = client.create_logged_model(
            prepare(),
            name=MODEL_NAME,
            source_run_id=run_id,
            tags=trained.origin.tags(),
            params={"stage": trained.origin.stage},
            model_type="video",
        )
        client.log_model_artifacts(model.model_id, str(folder / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id


def _signature() -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    columns = [ColSpec(DataType.binary, "image"), ColSpec(DataType.binary, "audio")]
    return ModelSignature(
        inputs=Schema([*columns, ColSpec(DataType.string, "text", required=False)]),
        outputs=Schema([ColSpec(DataType.binary, "video")]),
        params=ParamSchema([ParamSpec("seed", DataType.long, 0)]),
    )


def _artifacts(root: Path, trained: Trained, folder: Path) -> list[Path]:
    """The model's files, and the records of its making whole."""
    found = [trained.folder / "model.safetensors", trained.folder / "model.json"]
    found += [root / PARAMS, root / LOCK, root / EVALUATION]
    if trained.changes:
        (folder / "uncommitted.diff").write_bytes(trained.changes)
        found.append(folder / "uncommitted.diff")
    return found


def _description(trained: Trained) -> str:
    """Markdown for MLflow's page: the figures at a glance."""
    rows = [f"| {name} | {shown} |" for name, shown in headline(trained.figures).items()]
    commit = trained.origin.git_commit[:12] + (", with uncommitted changes" if trained.origin.dirty else "")
    return "\n".join(["| figure | value [interval] |", "| --- | --- |", *rows, "", f"Code: {commit}."])


def headline(figures: dict[str, Any]) -> dict[str, str]:
    """The figures that the gate looks at, with their intervals, by name."""
    shown = {}
    for name, *keys in (
        ("opening", "opening", "generated"),
        ("shuffled", "opening", "null"),
        ("background dB", "background_psnr_db"),
    ):
        part: Any = figures
        for key in keys:
            part = part.get(key) or {}
        values = [part.get(key) for key in ("value", "low", "high")]
        known = all(isinstance(value, (int, float)) for value in values)
        shown[name] = "{:.2f} [{:.2f}, {:.2f}]".format(*values) if known else "not measured"
    return shown
