"""How clips get a caption whose sidecar has none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caption:
    """A sidecar's caption always stands."""

    method: str = "none"
    """`none`; `template`, a sentence made of the scores; or `blip`, a vision-language model on the middle frame."""
    weights: str = ""
    """Of `blip`, folder or hub id, which may end in @REVISION."""
    weights_sha256: str = ""
    """Of those files; they load only where this is right."""
    max_tokens: int = 30
    short_side_pixels: int = 384
    """The frame is decoded to this size."""
    deadline_seconds: float = 120.0
    memory_megabytes: int = 4096
    """Of one worker, with the weights that it loads for its first clip."""
