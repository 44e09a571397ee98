"""Is a rendered file still what was rendered? Its sidecar and its content credentials are asked, each for itself."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.inference.content_credentials import Manifest, read_manifest
from omnihuman.inference.provenance import Provenance, sidecar_path
from omnihuman.media.tracks import track_hashes
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.storage.files import file_sha256

_READING = Limits(deadline_seconds=600.0, memory_megabytes=2048)
_TRACKS = {"video": "pictures", "audio": "sound"}


@dataclass(frozen=True)
class VerifiedVideo:
    """A rendered video and what was found out about it."""

    path: str
    unchanged: bool
    changes: tuple[str, ...]
    """What does not hold any more, in words."""
    has_sidecar: bool
    manifest: Manifest | None
    provenance: Provenance
    """The sidecar's, or the manifest's where there is none, or where it holds and says otherwise."""


def verify(path: Path) -> VerifiedVideo:
    """Holds a file against its sidecar and its manifest.

    Raises:
        UserError: neither of them tells what the file was made of.
    """
    manifest = read_manifest(path)
    signed = manifest.provenance if manifest else None
    changes = list(manifest.broken) if manifest else []
    try:
        sidecar = Provenance.load(path)
    except UserError as error:
        if signed is None:
            what = f", and content credentials of another program (signer: {manifest.signer})" if manifest else ""
            raise UserError(f"{error}{what}") from error
        if sidecar_path(path).exists():
            changes.append(str(error))
        return VerifiedVideo(str(path), not changes, tuple(changes), False, manifest, signed)
    told = sidecar
    if signed is not None and _told(signed, sidecar) != sidecar.told():
        told = sidecar if changes else signed
        what = "another content" if signed.content_id != sidecar.content_id else "another maker"
        changes.append(f"the sidecar tells of {what} than the signed manifest")
    elif manifest is None and sidecar.parameters.get("content_credentials"):
        changes.append("the content credentials that it was written with are gone, as after encoding it anew")
    changes += _against_sidecar(path, sidecar)
    return VerifiedVideo(str(path), not changes, tuple(changes), True, manifest, told)


def _told(signed: Provenance, sidecar: Provenance) -> dict[str, Any]:
    """What the manifest tells, as far as a sidecar of an older format could."""
    return (signed if sidecar.made_by else replace(signed, made_by="")).told()


def _against_sidecar(path: Path, sidecar: Provenance) -> Iterator[str]:
    if file_sha256(path) == sidecar.video_sha256:
        return
    yield "the file is not the one that the sidecar describes"
    if not sidecar.tracks_sha256:  # format 1
        return
    (outcome,) = run_guarded(track_hashes, [path], _READING, "")
    if outcome.value is None:
        yield f"it cannot be read as a video any more ({outcome.error})"
    elif outcome.value == sidecar.tracks_sha256:
        yield "pictures and sound are as rendered, only the container around them was changed"
    else:
        for kind, name in _TRACKS.items():
            before, now = sidecar.tracks_sha256.get(kind), outcome.value.get(kind)
            states = {before == now: "as rendered", now is None: "removed", before is None: "added"}
            if before or now:
                yield f"{name}: {states.get(True, 'changed')}"
