"""Does the mouth move with the sound? Sync-C and Sync-D by the published SyncNet, and what there is without weights."""

import numpy as np

from omnihuman.data.scorers.tracked_lip_sync import measure_tracked_lip_sync
from omnihuman.errors import UserError
from omnihuman.evaluation.extractors.faces import FOUND_BY, mouth_of
from omnihuman.evaluation.extractors.part import STAND_IN
from omnihuman.evaluation.metrics.items import ItemMetric
from omnihuman.evaluation.metrics.measure import Extractor, Shown
from omnihuman.evaluation.metrics.parts import Parts
from omnihuman.evaluation.metrics.pixels import by_scorer
from omnihuman.evaluation.mouth import MouthRegion, track_mouth
from omnihuman.evaluation.sound_tracks import envelope
from omnihuman.evaluation.statistics import correlation


def sync_c(parts: Parts) -> ItemMetric:
    """SyncNet's confidence, or how far the tracked mouth's agreement with the sound stands above other lags."""
    if part := parts.sync:
        return ItemMetric("sync_c", lambda shown: _first(part.of(shown)), part.extractor, "higher")
    extractor = Extractor(
        "stand-in: tracked mouth against bands of the sound, uncalibrated",
        f"face by {FOUND_BY}; at least 45 frames; standard deviations above other lags",
    )
    return ItemMetric("sync_c" + STAND_IN, by_scorer(parts, measure_tracked_lip_sync), extractor, "higher")


def sync_d(parts: Parts) -> ItemMetric:
    """SyncNet's distance; nothing stands in for it.

    Raises:
        UserError: no weights are named.
    """
    if part := parts.sync:
        return ItemMetric("sync_d", lambda shown: _last(part.of(shown)), part.extractor, "lower")
    raise UserError(
        "sync_d needs SyncNet: set evaluate.extractors.syncnet_weights to syncnet_v2.model of joonson/syncnet_python"
        " (MIT) and syncnet_sha256 beside it, or leave sync_d out and take sync_c, which has a stand-in"
    )


def mouth_and_loudness(_: Parts) -> ItemMetric:
    """Correlation of the mouth's opening with the sound's loudness; for drawn people, who open it by nothing else."""
    extractor = Extractor("darkness and redness of the mouth against the sound's loudness", f"face by {FOUND_BY}")
    return ItemMetric("mouth_and_loudness", _mouth_and_loudness, extractor, "higher")


def _first(found: tuple[float, float] | None) -> float | None:
    return None if found is None else found[0]


def _last(found: tuple[float, float] | None) -> float | None:
    return None if found is None else found[1]


def _mouth_and_loudness(shown: Shown) -> float | None:
    region = None if shown.sound is None else mouth_of(shown)
    if region is None or shown.sound is None:
        return None
    mouth = shown.frames[:, region.top : region.bottom, region.left : region.right].astype(np.float32) / 255
    whole = MouthRegion(0, 0, mouth.shape[2], mouth.shape[1])
    return correlation(track_mouth(mouth, whole).opening, envelope(shown.sound, len(mouth), shown.fps))
