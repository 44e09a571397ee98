"""Looks by LAION's aesthetic predictor on CLIP ViT-L/14, where weights are configured."""

import hashlib
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable

if TYPE_CHECKING:
    from omnihuman.encoders.aesthetics import Aesthetics

NAMES = ("laion_aesthetics",)
"""A name of its own: the stand-in `aesthetics` is another quantity, and shares no threshold with it."""
LICENCE = (
    "Apache-2.0 (christophschuhmann/improved-aesthetic-predictor; its ratings SAC, LAION-Logos and AVA, as published)"
    " on CLIP ViT-L/14 (MIT by its repository, see the limits of use in its model card)"
)


def laion_scorer(config: Score) -> Scorer:
    """The scorer with the configured weights of both networks."""
    weights = config.clip_weights, config.clip_sha256, config.aesthetic_weights, config.aesthetic_sha256
    both = hashlib.sha256(f"{config.clip_sha256} {config.aesthetic_sha256}".encode()).hexdigest()
    check = partial(_check, *weights)
    return Scorer(NAMES, partial(measure_aesthetics, *weights), "1", LICENCE, "published", both, check)


def measure_aesthetics(
    clip: str, clip_sha256: str, predictor: str, predictor_sha256: str, content: ClipContent
) -> tuple[Measurement, ...]:
    """Mean rating, about 1..10, of a few frames; Open-Sora keeps 5 and above, NeMo Curator 3.5.

    Raises:
        UserError: weights are missing or not the pinned ones.
    """
    network = _network(clip, clip_sha256, predictor, predictor_sha256)
    pictures = content.frames.pixels[content.few]
    if (short := min(pictures.shape[1:3])) < network.side:
        reason = f"CLIP sees {network.side} pixels, these pictures have {short}: raise score.short_side_pixels"
        return not_applicable(NAMES, reason)
    return (measured(NAMES[0], float(network.rate(pictures).mean()), len(pictures)),)


def _check(clip: str, clip_sha256: str, predictor: str, predictor_sha256: str) -> None:
    from omnihuman.encoders.aesthetics import CLIP, OPTION
    from omnihuman.encoders.weights import check_file, pinned_weights

    pinned_weights(clip, CLIP, clip_sha256)
    check_file(OPTION, Path(predictor), predictor_sha256)


@cache
def _network(clip: str, clip_sha256: str, predictor: str, predictor_sha256: str) -> "Aesthetics":
    from omnihuman.encoders.aesthetics import CLIP, Aesthetics
    from omnihuman.encoders.weights import pinned_weights

    return Aesthetics(pinned_weights(clip, CLIP, clip_sha256), Path(predictor), predictor_sha256)
