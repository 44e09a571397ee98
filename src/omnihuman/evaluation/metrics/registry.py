"""All metrics by name, each with what measures it: the published extractor where its weights are named, or a stand-in.

A stand-in's metric has a name of its own, which ends in `_stand_in`, so that its figures can meet published ones in no
table, chart or comparison.
"""

from collections.abc import Callable, Iterable
from functools import partial

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.errors import UserError
from omnihuman.evaluation.metrics import over_time, pixels, pose, sync
from omnihuman.evaluation.metrics.measure import Metric
from omnihuman.evaluation.metrics.parts import Parts
from omnihuman.evaluation.metrics.sets import SetMetric


def _of_pictures(name: str, distance: str, parts: Parts) -> Metric:
    part = parts.pictures
    return SetMetric(name + part.suffix, part.of, part.extractor, distance)


def _of_clips(name: str, distance: str, parts: Parts) -> Metric:
    part = parts.clips
    return SetMetric(name + part.suffix, part.of, part.extractor, distance)


METRICS: dict[str, Callable[[Parts], Metric]] = {
    "fid": partial(_of_pictures, "fid", "frechet"),
    "kid": partial(_of_pictures, "kid", "polynomial_mmd"),
    "fvd": partial(_of_clips, "fvd", "frechet"),
    "kvd": partial(_of_clips, "kvd", "polynomial_mmd"),
    "iqa": pixels.iqa,
    "ase": pixels.ase,
    "sync_c": sync.sync_c,
    "sync_d": sync.sync_d,
    "mouth_and_loudness": sync.mouth_and_loudness,
    "hkc": pose.hkc,
    "hkv": pose.hkv,
    "hkv_in_shoulders": pose.hkv_in_shoulders,
    "akd": pose.akd,
    "identity": over_time.identity,
    "drift_identity": partial(over_time.drift_of, "identity"),
    "drift_colour": partial(over_time.drift_of, "colour"),
    "drift_sharpness": partial(over_time.drift_of, "sharpness"),
    "drift_noise": partial(over_time.drift_of, "noise"),
    "flicker": pixels.flicker_metric,
    "subject_consistency": pixels.subject_consistency,
    "motion": pixels.motion,
    "noise": pixels.noise,
    "blocks": pixels.blocks,
}


def make_metrics(names: Iterable[str], config: Extractors, device: str = "cpu") -> list[Metric]:
    """The metrics of these names, which share what they compute of a video.

    Args:
        device: of published networks, `cpu` or `cuda`; stand-ins and ArcFace run on the processor.

    Raises:
        UserError: a name is unknown or stands there twice, or weights are missing, not the pinned ones or not allowed.
    """
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise UserError(f"there is no metric '{name}': choose some of {', '.join(METRICS)}")
        if names.count(name) > 1:
            raise UserError(f"the metric '{name}' is named twice: once is enough")
    parts = Parts(config, device)
    return [METRICS[name](parts) for name in names]
