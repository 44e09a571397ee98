"""All scorers, in the order of the score table."""

from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.body import FACE_SIZE, POSE_STABILITY, POSE_VISIBILITY
from omnihuman.data.scorers.content import Scorer
from omnihuman.data.scorers.lip_sync import LIP_SYNC
from omnihuman.data.scorers.movement import FROZEN_SHARE, MOTION
from omnihuman.data.scorers.overlay import OVERLAID_TEXT
from omnihuman.data.scorers.picture import AESTHETICS, BRIGHTNESS, IMAGE_QUALITY, SHARPNESS
from omnihuman.data.scorers.speech import SPEECH_PRESENCE
from omnihuman.data.scorers.syncnet import syncnet_scorer

SCORERS: tuple[Scorer, ...] = (
    IMAGE_QUALITY,
    SHARPNESS,
    BRIGHTNESS,
    AESTHETICS,
    MOTION,
    FROZEN_SHARE,
    OVERLAID_TEXT,
    FACE_SIZE,
    POSE_VISIBILITY,
    POSE_STABILITY,
    SPEECH_PRESENCE,
    LIP_SYNC,
    syncnet_scorer(),
)
"""Those of the default configuration."""


def scorers_for(config: Score) -> tuple[Scorer, ...]:
    """All scorers with the weights that are configured."""
    return (*SCORERS[:-1], syncnet_scorer(config.syncnet_weights, config.syncnet_sha256))
