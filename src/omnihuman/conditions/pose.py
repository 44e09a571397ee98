"""Pose: maps of body, feet, face and hands, encoded with adjacent frames, stacked on the noisy channels (sec. 3.2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.batch import KEYPOINTS, LIMBS, WHOLE_BODY_KEYPOINTS
from omnihuman.encoders.video_codec import TEMPORAL_FACTOR, num_latent_frames

_CELLS_PER_LATENT = 4
"""Map cells along one side of a latent position: fine enough to say where in a token an arm lies."""
_SPREAD = 1.0
"""Standard deviation of a joint's blob, and of a limb across its line, in cells."""


@dataclass(frozen=True)
class PoseMap:
    """What one map shows: one joint, or lines between keypoints; lines that cross are no brighter."""

    lines: tuple[tuple[int, int], ...]
    """Pairs of keypoints; a joint is a line from itself to itself."""


def pose_maps(num_keypoints: int) -> tuple[PoseMap, ...]:
    """The maps for a set of keypoints: one for each joint, limb, foot, finger and feature of the face.

    Raises:
        ValueError: no set has so many keypoints.
    """
    body = [PoseMap(((joint, joint),)) for joint in range(len(KEYPOINTS))]
    body += [PoseMap(((KEYPOINTS.index(start), KEYPOINTS.index(end)),)) for start, end in LIMBS]
    if num_keypoints == len(KEYPOINTS):
        return tuple(body)
    if num_keypoints != len(WHOLE_BODY_KEYPOINTS):
        sets = f"{len(KEYPOINTS)} (body) or {len(WHOLE_BODY_KEYPOINTS)} (whole body)"
        raise ValueError(f"{num_keypoints} keypoints came, expected {sets}")
    index = WHOLE_BODY_KEYPOINTS.index
    feet = [
        PoseMap(tuple((index(f"{side}_ankle"), index(f"{side}_{part}")) for part in ("big_toe", "small_toe", "heel")))
        for side in ("left", "right")
    ]
    face = index("face_0")
    features = [PoseMap(_line(range(face + first, face + last), closed)) for first, last, closed in _FACE]
    fingers = [
        PoseMap(_line([root, *range(root + 1 + 4 * finger, root + 5 + 4 * finger)]))
        for root in (index("left_hand_root"), index("right_hand_root"))
        for finger in range(5)
    ]
    return (*body, *feet, *features, *fingers)


# Jaw, brows, bridge and tip of the nose, eyes, outer and inner lips in the 68 landmarks of 300-W: first, end, closed.
_FACE = (
    (0, 17, False), (17, 22, False), (22, 27, False), (27, 31, False), (31, 36, False),
    (36, 42, True), (42, 48, True), (48, 60, True), (60, 68, True),
)  # fmt: skip


def _line(points: range | list[int], closed: bool = False) -> tuple[tuple[int, int], ...]:
    joined = list(points)
    return tuple(zip(joined, [*joined[1:], joined[0]] if closed else joined[1:], strict=False))


def draw_pose(keypoints: Tensor, height: int, width: int) -> Tensor:
    """Maps of a pose: Gaussian blobs and ridges weighted by confidence.

    Args:
        keypoints: [..., K, 3], x and y as shares of the picture.
        height, width: of the maps in cells.

    Returns:
        [..., maps, height, width], in the order of `pose_maps`.
    """
    drawn = []
    for _, alike in groupby(pose_maps(keypoints.shape[-2]), lambda one: len(one.lines)):
        lines = torch.tensor([one.lines for one in alike], device=keypoints.device)  # [maps, lines, 2]
        ridges = _draw_lines(keypoints, lines.flatten(0, 1), height, width)
        drawn.append(ridges.unflatten(-3, lines.shape[:2]).amax(dim=-3))
    return torch.cat(drawn, dim=-3)


def _draw_lines(keypoints: Tensor, lines: Tensor, height: int, width: int) -> Tensor:
    """Ridges along n lines [n, 2]: [..., n, height, width]."""
    keypoints = keypoints.float()  # in bfloat16 the middles of cells beyond the 128th are the same as their edges
    start, end = keypoints[..., lines[:, 0], :], keypoints[..., lines[:, 1], :]
    seen = torch.minimum(start[..., 2], end[..., 2])[..., None, None]
    columns = torch.arange(width, dtype=torch.float32, device=keypoints.device) + 0.5
    rows = torch.arange(height, dtype=torch.float32, device=keypoints.device) + 0.5
    to_right = columns - (start[..., 0] * width)[..., None]
    to_bottom = rows - (start[..., 1] * height)[..., None]
    along_x, along_y = (end - start)[..., 0, None] * width, (end - start)[..., 1, None] * height
    length = (along_x.square() + along_y.square()).clamp(min=1e-6)
    share = (to_bottom * along_y / length)[..., :, None] + (to_right * along_x / length)[..., None, :]
    share = share.clamp(0, 1)  # of the way along the line, where the cell is nearest to it
    right = to_right[..., None, :] - share * along_x[..., None]
    bottom = to_bottom[..., :, None] - share * along_y[..., None]
    return seen * torch.exp((right.square() + bottom.square()) / (-2 * _SPREAD**2))


class PoseCondition(nn.Module):
    """A small convolutional encoder per frame; the frames of one latent are then joined."""

    def __init__(self, pose_channels: int, num_keypoints: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(len(pose_maps(num_keypoints)), pose_channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(pose_channels, pose_channels, _CELLS_PER_LATENT, stride=_CELLS_PER_LATENT)
        self.join = nn.Conv2d(TEMPORAL_FACTOR * pose_channels, pose_channels, 1)
        # Of a map only a few cells differ from zero: with the usual weights the three layers would hush it.
        for layer, times in ((self.conv_1, 2.0), (self.conv_2, 4.0), (self.join, 2.0)):
            layer.weight.data.mul_(times)
        self._known: list[tuple[Tensor, Tensor, Tensor]] | None = None  # keypoints, pose_on and what was made of them

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within it a pose that came before is not encoded again: that of a segment is the same at all of its steps.

        The weights must stay as they are meanwhile.
        """
        self._known = []
        try:
            yield
        finally:
            self._known = None

    def forward(self, keypoints: Tensor, pose_on: Tensor, height: int, width: int) -> Tensor:
        """Keypoints [B, F, K, 3] to [B, P, T, height, width]; zeros where pose is off.

        F = 4 (T - 1) + 1, or 4 T in mid-stream, where the first latent covers four frames like the others.

        In training it computes also where no pose is on, with nothing: see `OmniHumanTransformer.forward_packed`.
        """
        known = self._known
        if known is None:
            return self._encode_on(keypoints, pose_on, height, width)
        for before, was_on, pose in known:
            same_size = pose.shape[-2:] == (height, width)
            if same_size and torch.equal(before, keypoints) and torch.equal(was_on, pose_on):
                return pose
        pose = self._encode_on(keypoints, pose_on, height, width)
        known.append((keypoints, pose_on, pose))
        return pose

    def _encode_on(self, keypoints: Tensor, pose_on: Tensor, height: int, width: int) -> Tensor:
        shape = (len(keypoints), num_latent_frames(keypoints.shape[1]), self.join.out_channels, height, width)
        if not self.training and not pose_on.any():
            return self.join.weight.new_zeros(shape).transpose(1, 2)
        encoded = self._encode(keypoints[pose_on], height, width)  # drawing the others' maps would cost as much
        return encoded.new_zeros(shape).index_put((pose_on,), encoded).transpose(1, 2)

    def _encode(self, keypoints: Tensor, height: int, width: int) -> Tensor:
        """[B, F, K, 3] to [B, T, P, height, width]."""
        batch, num_frames = keypoints.shape[:2]
        maps = draw_pose(keypoints, height * _CELLS_PER_LATENT, width * _CELLS_PER_LATENT).flatten(0, 1)
        frames = self.conv_2(functional.silu(self.conv_1(maps.to(self.conv_1.weight.dtype)))).unflatten(
            0, (batch, num_frames)
        )
        if num_frames % TEMPORAL_FACTOR:
            first = frames[:, :1].expand(-1, TEMPORAL_FACTOR, -1, -1, -1)
            frames = torch.cat([first, frames[:, 1:]], dim=1)
        frames = frames.unflatten(1, (-1, TEMPORAL_FACTOR))
        joined = self.join(functional.silu(frames.flatten(2, 3).flatten(0, 1)))
        return joined.unflatten(0, (batch, frames.shape[1]))
