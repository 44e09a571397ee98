"""Limits under which clips are decoded and measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One decode per clip, shared by all scorers, inside a worker that can be killed."""

    short_side_pixels: int = 160
    """Frames are decoded to this size."""
    fps: float = 25.0
    """Frames are taken by timestamp at this rate."""
    deadline_seconds: float = 60.0
    memory_megabytes: int = 2048
    clips_per_worker: int = 200
    """A worker process is replaced after so many clips."""
    imported: str = ""
    """A table (.parquet, .csv) of scores measured elsewhere, absolute path; its scorers are not measured here."""
    imported_source: str = ""
    """Who measured them, e.g. the name of a tool; stands in every row."""
    imported_version: str = ""
    imported_sha256: str = ""
    """Of the table. Set by composition, so that another table makes the step stale."""
    lip_sync: str = "darkness"
    """Which stand-in measures lip_sync: `darkness` of the mouth, for drawn people, or `tracked`, for real ones."""
    count_faces: bool = False
    """Also measures num_faces and its steadiness, which takes about as long as all others where poses are declared."""
    syncnet_weights: str = ""
    """SyncNet's published state dict (joonson/syncnet_python); empty: its scores are `na`."""
    syncnet_sha256: str = ""
    """Of that file; it loads only where this is right."""
