"""What is refused before anything is averaged: parts that do not fit each other, items that count twice."""

from collections.abc import Sequence

import numpy as np

from omnihuman.errors import UserError
from omnihuman.evaluation.metrics.measure import Kept, Shown


def check_shown(shown: Shown) -> None:
    """Refuses a video whose parts do not fit each other.

    Raises:
        UserError: it has no frames, they are not uint8 in RGB, or picture or driving pose have another size or length.
    """
    frames = shown.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise UserError(f"{shown.item}: frames of {frames.dtype} {list(frames.shape)}, expected uint8 [F, H, W, 3]")
    if shown.reference is not None and shown.reference.shape != frames.shape[1:]:
        raise UserError(
            f"{shown.item}: the video has {_size(frames[0])}, the reference {_size(shown.reference)}: bring the"
            " reference to the video's size"
        )
    if shown.driving is not None and len(shown.driving) != len(frames):
        raise UserError(
            f"{shown.item}: the video has {len(frames)} frames, its driving pose {len(shown.driving)}: they have to"
            " begin and end together"
        )


def check_pair(generated: Shown, real: Shown) -> None:
    """Refuses a generated video that is not of its real one's length, size and rate.

    Raises:
        UserError: with the item and both sizes.
    """
    ours, theirs = (f"{len(video.frames)} frames of {_size(video.frames[0])} at {video.fps:g} a second"
                    for video in (generated, real))  # fmt: skip
    if ours != theirs:
        raise UserError(
            f"{generated.item}: the generated video has {ours}, the real one {theirs}: make both alike, nothing is"
            " cut or resized here"
        )


def check_kept(metric: str, *sets: Sequence[Kept]) -> None:
    """Refuses what would be averaged without being comparable.

    Raises:
        UserError: an item stands in a set twice, or a video gave numbers of another width than the first one.
    """
    widths: dict[tuple[int, ...], str] = {}
    for kept in sets:
        seen: set[str] = set()
        for each in kept:
            if each.item in seen:
                raise UserError(f"{metric}: the item {each.item} stands in one set twice: give each video once")
            seen.add(each.item)
            widths.setdefault(each.values.shape[1:], each.item)
    if len(widths) > 1:
        told = ", ".join(f"{item} {list(width)}" for width, item in widths.items())
        raise UserError(f"{metric}: videos were measured by different extractors ({told}): measure all by one")


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]} pixels"
