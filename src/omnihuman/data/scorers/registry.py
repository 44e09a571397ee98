"""All scorers, in the order of the score table."""

import re
from collections.abc import Iterable, Iterator

from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.aesthetics import laion_scorer
from omnihuman.data.scorers.body import FACE_SIZE, POSE_STABILITY, POSE_VISIBILITY
from omnihuman.data.scorers.content import Scorer
from omnihuman.data.scorers.estimated_pose import pose_scorer
from omnihuman.data.scorers.faces import FACES
from omnihuman.data.scorers.framing import BORDERS, WATERMARK
from omnihuman.data.scorers.lip_sync import LIP_SYNC
from omnihuman.data.scorers.movement import FROZEN_SHARE, MOTION
from omnihuman.data.scorers.overlay import OVERLAID_TEXT
from omnihuman.data.scorers.picture import AESTHETICS, BLOWN_SHARE, BRIGHTNESS, IMAGE_QUALITY, SHARPNESS
from omnihuman.data.scorers.small_syncnet import trained_scorer
from omnihuman.data.scorers.speech import SPEECH_PRESENCE
from omnihuman.data.scorers.syncnet import syncnet_scorer
from omnihuman.data.scorers.tracked_lip_sync import TRACKED_LIP_SYNC
from omnihuman.data.scorers.yunet import yunet_scorer
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
_NON_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])|non[\s_-]*commercial|(research|academic)([\s_-]+use)?[\s_-]+only", re.IGNORECASE
)


def scorers_for(config: Score) -> tuple[Scorer, ...]:
    """All scorers with what is configured; one with weights takes the place of those whose measurements it covers.

    Raises:
        UserError: `score.lip_sync` names no scorer, or a licence forbids commercial use and nobody allowed that.
    """
    configured = tuple(_configured(config))
    for scorer in configured:
        if _NON_COMMERCIAL.search(scorer.licence) and not config.allow_non_commercial:
            raise UserError(
                f"the scorer of {', '.join(scorer.names)} may not be used commercially (licence: {scorer.licence}):"
                " leave its weights out, or set score.allow_non_commercial=true where your use is allowed"
            )
    kept = (old for old in SCORERS if not any(set(old.names) <= set(new.names) for new in configured))
    return *kept, *configured


def check_weights(scorers: Iterable[Scorer]) -> None:
    """Raises `UserError` where weights are missing or not the pinned ones, before hours go into rows of errors."""
    for scorer in scorers:
        scorer.check()


def _configured(config: Score) -> Iterator[Scorer]:
    if config.aesthetic_weights:
        yield laion_scorer(config)
    if config.niqe_weights:
        from omnihuman.data.scorers.niqe import niqe_scorer  # what it needs of scipy is dear to import in every worker

        yield niqe_scorer(config.niqe_weights, config.niqe_sha256)
    if config.count_faces and not config.face_weights:
        yield FACES
    if config.face_weights:
        yield yunet_scorer(config.face_weights, config.face_sha256)
    if config.pose_weights:
        yield pose_scorer(config.pose_weights, config.pose_sha256)
    if config.lip_sync == "trained":
        yield trained_scorer(config.lip_sync_weights, config.lip_sync_sha256)
    elif config.lip_sync in STAND_INS:
        yield STAND_INS[config.lip_sync]
    else:
        raise UserError(f"score.lip_sync is {config.lip_sync!r}: choose {', '.join(STAND_INS)} or trained")
    yield syncnet_scorer(config.syncnet_weights, config.syncnet_sha256)
