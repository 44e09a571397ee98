"""Keypoints of body and hands by DWPose."""

from pathlib import Path

import numpy as np

from omnihuman.batch import WHOLE_BODY_KEYPOINTS
from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.pose_estimator import WholeBodyEstimator, pinned_files
from omnihuman.evaluation.extractors.part import Part
from omnihuman.evaluation.metrics.keypoints import Found, shoulder_width
from omnihuman.evaluation.metrics.measure import Extractor, Shown

OPTION = "evaluate.extractors.pose_weights"
HANDS = list(range(len(WHOLE_BODY_KEYPOINTS) - 42, len(WHOLE_BODY_KEYPOINTS)))
"""The last of COCO-WholeBody: 21 of the left hand, then those of the right."""


def split(points: np.ndarray, height: int, width: int) -> Found:
    """Of keypoints [F, 133, 3], the body's 133 and the hands' 42."""
    return Found(points, points[:, HANDS], shoulder_width(points, height, width))


def whole_body_part(config: Extractors, device: str) -> Part[Found | None]:
    """Keypoints of every frame.

    Raises:
        UserError: rtmlib or the weights are missing, or they are not the pinned ones.
    """
    detector, pose = pinned_files(OPTION, Path(config.pose_weights), config.pose_sha256).values()
    estimator = WholeBodyEstimator(detector, pose, device)

    def find(shown: Shown) -> Found:
        height, width = shown.frames.shape[1:3]
        return split(estimator.estimate(shown.frames), height, width)

    # No detector is published for the paper's figures, so that none of these can be called theirs.
    told = "every frame; the largest person, followed"
    return Part(find, Extractor("DWPose (rtmlib)", told, config.pose_sha256, calibrated=False))
