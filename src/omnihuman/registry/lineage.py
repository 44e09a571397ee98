"""From a rendered video, or a version of the model, back to everything that it was made from."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnihuman.errors import UserError
from omnihuman.inference.content_credentials import Manifest
from omnihuman.inference.provenance import SUFFIX, ModelIdentity
from omnihuman.inference.verification import VerifiedVideo, verify
from omnihuman.registry.origin import Origin
from omnihuman.registry.store import MODEL_NAME, aliases, connect, find
from omnihuman.registry.versions import params_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

_MISSING = "not in this MLflow store"


@dataclass(frozen=True)
class Run:
    """An MLflow run that had a part in the model."""

    step: str
    run_id: str
    name: str
    status: str


@dataclass(frozen=True)
class Lineage:
    """All that is known, from the file down to the data."""

    video: VerifiedVideo | None
    name: str
    version: int | None
    """None where the weights are in no registered version."""
    aliases: tuple[str, ...]
    origin: Origin | None
    runs: tuple[Run, ...]
    params: dict[str, Any]
    """The whole params.yaml of the version."""

    def as_json(self) -> dict[str, Any]:
        """A plain tree."""
        return asdict(self)


def lineage(subject: str) -> Lineage:
    """Follows a video's sidecar NAME.mp4.json or its content credentials, or a version (`champion`, `3`).

    Raises:
        UserError: no such file or version, nothing tells what the file was made of, or the server does not answer.
    """
    path = Path(subject)
    if path.name.endswith(f".mp4{SUFFIX}"):
        path = path.with_suffix("")
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise UserError(f"{path}: no such file; give a rendered video, an alias or a version's number")
        client = connect()
        return _of_version(client, None, find(client, subject))
    video = verify(path)
    client = connect()
    registered = _version_of(client, video.provenance.model)
    if registered is None:
        return Lineage(video, video.provenance.model.name, None, (), None, (), {})
    return _of_version(client, video, registered)


def _version_of(client: "MlflowClient", model: ModelIdentity) -> "RegisteredVersion | None":
    """The version that the sidecar names if its weights are the recorded ones, else any with these weights."""
    found = client.search_model_versions(f"name='{MODEL_NAME}' and tags.weights_sha256='{model.sha256}'")
    named = [version for version in found if int(version.version) == model.version]
    return min(named or found, key=lambda version: int(version.version), default=None)


def _of_version(client: "MlflowClient", video: VerifiedVideo | None, registered: "RegisteredVersion") -> Lineage:
    number, origin = int(registered.version), Origin.from_tags(registered.tags)
    return Lineage(
        video=video,
        name=MODEL_NAME,
        version=number,
        aliases=tuple(sorted(alias for alias, version in aliases(client).items() if version == number)),
        origin=origin,
        runs=tuple(_run(client, step, run_id) for step, run_id in origin.run_ids.items()),
        params=params_of(number),
    )


def _run(client: "MlflowClient", step: str, run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    try:
        info = client.get_run(run_id).info
    except MlflowException:  # an arm's run may be in another store
        return Run(step, run_id, _MISSING, _MISSING)
    return Run(step, run_id, info.run_name or "", info.status)


def lines(found: Lineage) -> list[str]:
    """The lineage as text, from the file down to the data."""
    rows: list[tuple[str, str]] = []
    video, origin = found.video, found.origin
    if video:
        told = video.provenance
        state = "unchanged" if video.unchanged else "CHANGED since it was rendered: what follows is the recorded file's"
        rows += [("video", f"{video.path}, {state}"), *(("changed", change) for change in video.changes)]
        rows += [
            (
                "sidecar",
                f"of the file with sha256 {told.video_sha256}" if video.has_sidecar else "none: the credentials tell",
            )
        ]
        rows += [
            ("credentials", _signed(video.manifest)),
            ("made by", told.made_by or "an earlier version of omnihuman"),
        ]
        rows += [(f"input {role}", f"sha256 {sha256}") for role, sha256 in told.inputs.items()]
        rows += [("rendered with", ", ".join(f"{key}={value}" for key, value in told.parameters.items()))]
    if origin is None:
        weights = video.provenance.model.sha256 if video else ""
        return _table([*rows, ("model", f"weights {weights} are in no registered version: `registry register` first")])
    named = f" ({', '.join(found.aliases)})" if found.aliases else ""
    rows += [
        ("model", f"{found.name} version {found.version}{named}, stage {origin.stage}"),
        ("weights", f"sha256 {origin.weights_sha256}"),
        *((f"run {run.step}", f"{run.run_id}  {run.name}  {run.status}") for run in found.runs),
        *([] if found.runs else [("runs", "none recorded")]),
        ("git commit", origin.git_commit + ("  with uncommitted changes (uncommitted.diff)" if origin.dirty else "")),
        ("dvc.lock", f"sha256 {origin.dvc_lock_sha256}"),
        ("data/encoded", f"md5 {origin.data_md5}"),
        ("params.yaml", f"sha256 {origin.params_sha256}"),
        ("profile", f"{found.params.get('profile')}, overrides: {' '.join(found.params.get('overrides') or ['none'])}"),
    ]
    return _table(rows)


def _signed(manifest: Manifest | None) -> str:
    """The state of the C2PA manifest and who signed it."""
    if manifest is None:
        return "none"
    state = "BROKEN" if manifest.broken else "intact"
    machine = " on this machine" if manifest.ours else " on another machine" if manifest.self_made else ""
    return f"C2PA manifest, {state}, signed{machine} by: {manifest.signer}"


def _table(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]
