"""What a model must reach to become the champion."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """Floors that every champion keeps, and by how much a new one may fall behind the old (see registry/gate.py)."""

    min_opening: float = 0.35
    """Correlation of mouth opening and loudness."""
    min_background_psnr_db: float = 20.0
    margin_opening: float = 0.15
    margin_width: float = 0.2
    margin_background_psnr_db: float = 2.0
    margin_pose_distance: float = 0.02
    """Of keypoints to the driving pose, in shares of the picture's height; less is better."""
