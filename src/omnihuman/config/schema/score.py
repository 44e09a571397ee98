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
    """What measures lip_sync: a stand-in, `darkness` of the mouth, for drawn people, or `tracked`, for real ones; or
    `trained`, the small SyncNet of `omnihuman data train-syncnet`."""
    lip_sync_weights: str = ""
    """Of `trained`, absolute path."""
    lip_sync_sha256: str = ""
    """Of that file. Here and below weights load only where the hash is the one that stands beside them."""
    count_faces: bool = False
    """Also measures num_faces and its steadiness, which takes about as long as all others where poses are declared."""
    syncnet_weights: str = ""
    """SyncNet's published state dict (joonson/syncnet_python); empty: its scores are `na`."""
    syncnet_sha256: str = ""
    aesthetic_weights: str = ""
    """State dict of LAION's aesthetic predictor; empty: no laion_aesthetics. It needs CLIP, too."""
    aesthetic_sha256: str = ""
    clip_weights: str = ""
    """CLIP ViT-L/14, folder or hub id, which may end in @REVISION."""
    clip_sha256: str = ""
    niqe_weights: str = ""
    """NIQE's model, a .mat of the authors' layout; empty: no niqe."""
    niqe_sha256: str = ""
    face_weights: str = ""
    """YuNet's ONNX file: it measures face_size and the number of faces in place of the stand-ins."""
    face_sha256: str = ""
    pose_weights: str = ""
    """Folder with DWPose's two ONNX files: they find the pose of clips that declare none. See encode.pose_weights."""
    pose_sha256: str = ""
    allow_non_commercial: bool = False
    """Whether scorers may run whose licence, or that of what they were trained on, forbids commercial use."""
