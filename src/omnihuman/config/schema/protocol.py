"""A protocol of evaluation: everything that a figure depends on beside the videos and the extractors."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ItemsOf:
    """Which people, sounds and poses."""

    layout: str = "plain"
    """Of the folder that the user names: `celebv_hq`, `ravdess`, `hdtf`, `plain` (any videos), or `encoded` (held-out
    clips of the step `encode`). A list with a row for each item may stand in place of any folder."""
    num_videos: int = 0
    """Exactly so many are taken, in an order that the seed decides; 0: all."""
    num_people: int = 0
    """They must show so many people; 0: any number."""
    seed: int = 0


@dataclass(frozen=True)
class Clips:
    """What the videos must be like. Real videos are brought to it, others are refused where they differ."""

    fps: float = 25.0
    width: int = 0
    """In pixels; real videos cover width and height, and what juts out is cut off. 0: as the real video."""
    height: int = 0
    max_seconds: float = 0.0
    """Real videos and sounds are cut to it; 0: they stay whole."""
    tolerance_frames: int = 1
    """By which a video may be longer or shorter; all are then cut to the shortest of the item."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """One file of conf/protocol."""

    items: ItemsOf = field(default_factory=ItemsOf)
    clips: Clips = field(default_factory=Clips)
    driven_by: tuple[str, ...] = ("audio",)
    """Of `audio` and `pose`: what the items must have, and what drives; picture and text always do."""
    metrics: tuple[str, ...] = ()
    seed: int = 0
    """Of the noise."""
    chaining: str = "decoded_frames"
    """How segments are joined, as `render.chaining`."""
    confidence: float = 0.95
    """Of all intervals."""
