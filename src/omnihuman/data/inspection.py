"""What is known about one video file."""

from dataclasses import dataclass

from omnihuman.config.schema.collect import Collect
from omnihuman.data.entries import Entry
from omnihuman.data.sidecar import Sidecar, keypoints_path, read_keypoints, read_sidecar
from omnihuman.media.probe import VideoProbe, probe
from omnihuman.storage.files import file_sha256

NO_PROBE = VideoProbe(0.0, 0.0, 0, 0, 0, "", "", 0)
NO_SIDECAR = Sidecar()


@dataclass(frozen=True)
class Inspection:
    """What can be said about one file."""

    sha256: str = ""  # empty where the file was not read
    error: str = ""
    probe: VideoProbe = NO_PROBE
    sidecar: Sidecar = NO_SIDECAR
    keypoints_sha256: str = ""  # empty without a declared pose
    note: str = ""  # a fault that does not spoil the video


def inspect(config: Collect, entry: Entry) -> Inspection:
    """Reads one file and its sidecars; runs inside a guarded worker, because probing decodes."""
    path, root = entry.path, entry.root
    if root and not path.resolve().is_relative_to(root.resolve()):
        return Inspection(error="is a link that leaves the folder; copy the file into it")
    if path.exists() and not path.is_file():
        return Inspection(error="is no regular file; remove it")
    try:
        num_bytes = path.stat().st_size
        if num_bytes > config.max_file_bytes:
            return Inspection(
                error=f"has {num_bytes} bytes, more than collect.max_file_bytes = {config.max_file_bytes}"
            )
        sha256 = file_sha256(path)
        return _inspect_content(config, entry, sha256)
    except OSError as error:
        return Inspection(error=f"cannot be read: {error.strerror}")


def _inspect_content(config: Collect, entry: Entry, sha256: str) -> Inspection:
    path = entry.path
    try:
        sidecar = read_sidecar(path)  # first: also who is shown in a damaged video must be known
    except ValueError as error:
        return Inspection(sha256, str(error))
    try:
        facts = probe(path)
    except ValueError as error:
        return Inspection(sha256, str(error), sidecar=sidecar)
    if facts.duration_seconds > config.max_duration_seconds:
        limit = f"collect.max_duration_seconds = {config.max_duration_seconds:g}"
        return Inspection(sha256, f"lasts {facts.duration_seconds:.1f} s, longer than {limit}", facts, sidecar)
    if entry.span and entry.span[0] >= facts.duration_seconds:
        said = f"lasts {facts.duration_seconds:.1f} s: start_seconds {entry.span[0]:g} is not in it"
        return Inspection(sha256, said, facts, sidecar)
    pose = keypoints_path(path)
    if not pose.is_file():
        return Inspection(sha256, "", facts, sidecar)
    try:
        read_keypoints(pose)
    except ValueError as error:
        return Inspection(sha256, "", facts, sidecar, note=str(error))
    return Inspection(sha256, "", facts, sidecar, file_sha256(pose))
