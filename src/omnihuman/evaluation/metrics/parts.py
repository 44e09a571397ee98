"""What several metrics share: one extractor of each kind, and what it says of a video, computed once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.evaluation.extractors import drawn_hands, grid
from omnihuman.evaluation.extractors.part import Part
from omnihuman.evaluation.metrics.keypoints import Found
from omnihuman.evaluation.metrics.measure import Shown
from omnihuman.evaluation.metrics.once import Once

T = TypeVar("T")


class Parts:
    """Extractors, made when the first metric asks for them; networks are imported only where their weights are named.

    Errors as for the extractors: weights are missing, not the pinned ones or not allowed.
    """

    def __init__(self, config: Extractors, device: str = "cpu") -> None:
        self.config, self.device = config, device
        self._once: dict[Callable[[Shown], Any], Once] = {}

    def once(self, function: Callable[[Shown], T]) -> Callable[[Shown], T]:
        """The function, computed once a video for all metrics that ask for it."""
        return self._once.setdefault(function, Once(function))

    @cached_property
    def pictures(self) -> Part[np.ndarray]:
        """Features of single frames, [n, d]."""
        if not self.config.inception_weights:
            return self._shared(grid.PICTURES)
        from omnihuman.evaluation.extractors.inception import inception_part

        return self._shared(inception_part(self.config, self.device))

    @cached_property
    def clips(self) -> Part[np.ndarray | None]:
        """Features of clips, [n, d]; None of a video that is shorter than a clip."""
        if not self.config.i3d_weights:
            return self._shared(grid.CLIPS)
        from omnihuman.evaluation.extractors.i3d import i3d_part

        return self._shared(i3d_part(self.config, self.device))

    @cached_property
    def subjects(self) -> Part[np.ndarray]:
        """Features of every frame, [F, d], by which a subject is known again."""
        if not self.config.dino_weights:
            return grid.EVERY_PICTURE
        from omnihuman.evaluation.extractors.dino import dino_part

        return dino_part(self.config, self.device)

    @cached_property
    def keypoints(self) -> Part[Found | None]:
        """Keypoints of body and hands; None where they cannot be looked for."""
        if not self.config.pose_weights:
            return self._shared(drawn_hands.DRAWN_HANDS)
        from omnihuman.evaluation.extractors.whole_body import whole_body_part

        return self._shared(whole_body_part(self.config, self.device))

    @cached_property
    def sync(self) -> Part[tuple[float, float] | None] | None:
        """SyncNet's confidence and distance; no part without its weights."""
        if not self.config.syncnet_weights:
            return None
        from omnihuman.evaluation.extractors.published_sync import sync_part

        return self._shared(sync_part(self.config, self.device))

    @cached_property
    def faces(self) -> Part[float | None] | None:
        """ArcFace's cosine to the reference; no part without its weights."""
        if not self.config.arcface_weights:
            return None
        from omnihuman.evaluation.extractors.arcface import arcface_part

        return arcface_part(self.config)

    def rater(self, task: str) -> Part[float] | None:
        """Q-Align's `quality` or `aesthetic`; no part without its weights."""
        if not self.config.qalign_weights:
            return None
        from omnihuman.evaluation.extractors.qalign import qalign_part

        return qalign_part(self.config, task, self.device)

    def _shared(self, part: Part[T]) -> Part[T]:
        return Part(Once(part.of), part.extractor, part.suffix)
