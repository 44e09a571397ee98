"""Visibility and steadiness of a pose that nobody declared: DWPose finds it, where its weights are configured."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.batch import Keypoints
from omnihuman.data.scorers.body import POSE_STABILITY, POSE_VISIBILITY
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer

if TYPE_CHECKING:
    from omnihuman.encoders.pose_estimator import WholeBodyEstimator

NAMES = (*POSE_VISIBILITY.names, *POSE_STABILITY.names)
LICENCE = "Apache-2.0 (DWPose and its YOLOX; their training data COCO-WholeBody and UBody, as published)"
OPTION = "score.pose_weights"


def pose_scorer(weights: str, sha256: str) -> Scorer:
    """The scorer with the two ONNX files of a folder. It takes the place of those of a declared pose.

    A pose that is declared is measured as it is: it is the one that trains.
    """
    version = f"{POSE_VISIBILITY.version}.{POSE_STABILITY.version} dwpose"
    check = partial(_check, weights, sha256)
    return Scorer(NAMES, partial(measure_pose, weights, sha256), version, LICENCE, "published", sha256, check)


def measure_pose(weights: str, sha256: str, content: ClipContent) -> tuple[Measurement, ...]:
    """As the scorers of a declared pose.

    Raises:
        UserError: the weights are missing or not the pinned ones.
    """
    if content.keypoints is None:
        content = replace(content, keypoints=_estimate(_estimator(weights, sha256), content))
    return *POSE_VISIBILITY.measure(content), *POSE_STABILITY.measure(content)


def _estimate(estimator: "WholeBodyEstimator", content: ClipContent) -> Keypoints:
    """Of every picture with a time of its own."""
    frames = content.frames
    return Keypoints(estimator.estimate(frames.pixels[content.distinct]), frames.seconds[content.distinct])


def _check(weights: str, sha256: str) -> None:
    from omnihuman.encoders.pose_estimator import pinned_files

    pinned_files(OPTION, Path(weights), sha256)


@cache
def _estimator(weights: str, sha256: str) -> "WholeBodyEstimator":
    from omnihuman.encoders.pose_estimator import WholeBodyEstimator, pinned_files

    detector, pose = pinned_files(OPTION, Path(weights), sha256).values()
    return WholeBodyEstimator(detector, pose)
