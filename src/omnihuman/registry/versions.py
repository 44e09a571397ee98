"""One version of the model, and its files on this machine, checked against the registered hashes."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnihuman.config.load import read_yaml
from omnihuman.errors import UserError
from omnihuman.registry.origin import PARAMS, Origin
from omnihuman.registry.store import MODEL_NAME, aliases, connect, exclusive, find
from omnihuman.storage.files import file_sha256, publish_folder
from omnihuman.storage.work import omnihuman_home

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion


@dataclass(frozen=True)
class ModelVersion:
    """A registered version with a checked local copy."""

    name: str
    version: int
    run_id: str
    """MLflow run of the last stage; empty where none was recorded."""
    sha256: str
    """Of model.safetensors."""
    folder: Path
    """With model.safetensors and model.json."""
    aliases: tuple[str, ...]


def resolve(reference: str) -> ModelVersion:
    """The version behind an alias or a number, its files copied to this machine where they are not there yet.

    Args:
        reference: `champion`, `candidate` or a number such as `3`.

    Raises:
        UserError: no such version or alias, no champion yet, the server does not answer, or the registered files
            are not what was registered.
    """
    client = connect()
    return as_version(client, find(client, reference))


def as_version(client: "MlflowClient", registered: "RegisteredVersion") -> ModelVersion:
    """MLflow's record as ours, with its files on this machine; errors as in `resolve`."""
    number = int(registered.version)
    origin = Origin.from_tags(registered.tags)
    return ModelVersion(
        name=MODEL_NAME,
        version=number,
        run_id=registered.run_id or "",
        sha256=origin.weights_sha256,
        folder=_local_copy(number, origin),
        aliases=tuple(sorted(alias for alias, version in aliases(client).items() if version == number)),
    )


def params_of(version: int) -> dict[str, Any]:
    """The whole params.yaml that a version was made with."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        uri = f"models:/{MODEL_NAME}/{version}/artifacts/{PARAMS}"
        return read_yaml(Path(download_artifacts(uri, dst_path=folder)))


def _local_copy(number: int, origin: Origin) -> Path:
    """The folder of the version's files; equal weights with another description lie beside one another."""
    wanted = {"model.safetensors": origin.weights_sha256, "model.json": origin.description_sha256}
    folder = omnihuman_home() / "models" / origin.weights_sha256 / origin.description_sha256[:16]
    with exclusive(f"copy-{origin.weights_sha256[:16]}", timeout_seconds=600.0):
        if _differing(folder, wanted):
            _download(number, folder, wanted)
    return folder


def _download(number: int, folder: Path, wanted: dict[str, str]) -> None:
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary, publish_folder(folder) as published:
        for name in wanted:
            uri = f"models:/{MODEL_NAME}/{number}/artifacts/{name}"
            shutil.move(download_artifacts(uri, dst_path=temporary), published / name)
        if differing := _differing(published, wanted):
            raise UserError(
                f"version {number} of {MODEL_NAME}: {', '.join(differing)} in the registry's store is not what was"
                " registered; restore the store or register again"
            )


def _differing(folder: Path, wanted: dict[str, str]) -> list[str]:
    return [
        name for name, sha256 in wanted.items() if not (folder / name).is_file() or file_sha256(folder / name) != sha256
    ]
