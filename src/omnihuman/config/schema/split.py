"""How sources are cut into clips at shot boundaries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """Thresholds of PySceneDetect's two detectors and the lengths of clips."""

    adaptive_threshold: float = 3.0
    histogram_threshold: float = 0.12
    min_clip_seconds: float = 0.8
    max_clip_seconds: float = 6.0
    """Longer shots are cut into equal parts of at most this length."""
    detection_short_side_pixels: int = 96
    deadline_seconds: float = 120.0
    memory_megabytes: int = 2048
