"""All scorers, in the order of the score table."""

from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.body import FACE_SIZE, POSE_STABILITY, POSE_VISIBILITY
from omnihuman.data.scorers.content import Scorer
from omnihuman.data.scorers.faces import FACES
from omnihuman.data.scorers.framing import BORDERS, WATERMARK
from omnihuman.data.scorers.lip_sync import LIP_SYNC
from omnihuman.data.scorers.movement import FROZEN_SHARE, MOTION
from omnihuman.data.scorers.overlay import OVERLAID_TEXT
from omnihuman.data.scorers.picture import AESTHETICS, BLOWN_SHARE, BRIGHTNESS, IMAGE_QUALITY, SHARPNESS
from omnihuman.data.scorers.speech import SPEECH_PRESENCE
from omnihuman.data.scorers.syncnet import syncnet_scorer
from omnihuman.data.scorers.tracked_lip_sync import TRACKED_LIP_SYNC
from omnihuman.errors import UserError

SCORERS: tuple[Scorer, ...] = (
    IMAGE_QUALITY,
    SHARPNESS,
    BRIGHTNESS,
    AESTHETICS,
    MOTION,
    FROZEN_SHARE,
    OVERLAID_TEXT,
    BORDERS,
    WATERMARK,
    BLOWN_SHARE,
    FACE_SIZE,
    POSE_VISIBILITY,
    POSE_STABILITY,
    SPEECH_PRESENCE,
    LIP_SYNC,
    syncnet_scorer(),
)
"""Those of the default configuration."""


STAND_INS = {"darkness": LIP_SYNC, "tracked": TRACKED_LIP_SYNC}
"""By `score.lip_sync`; their values are not comparable, so each needs a threshold of its own."""


def scorers_for(config: Score) -> tuple[Scorer, ...]:
    """All scorers with what is configured.

    Raises:
        UserError: `score.lip_sync` names no scorer.
    """
    if config.lip_sync not in STAND_INS:
        raise UserError(f"score.lip_sync is {config.lip_sync!r}: choose {' or '.join(STAND_INS)}")
    syncnet = syncnet_scorer(config.syncnet_weights, config.syncnet_sha256)
    faces = (FACES,) if config.count_faces else ()
    return (*SCORERS[:-2], *faces, STAND_INS[config.lip_sync], syncnet)
