"""Pose: maps of joints and limbs, encoded with adjacent frames, stacked on the noisy latent's channels (sec. 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.batch import KEYPOINTS, LIMBS
from omnihuman.encoders.video_codec import TEMPORAL_FACTOR, num_latent_frames

_CELLS_PER_LATENT = 4
"""Map cells along one side of a latent position: fine enough to say where in a token an arm lies."""
_SPREAD = 1.0
"""Standard deviation of a joint's blob, and of a limb across its line, in cells."""
_NUM_MAPS = len(KEYPOINTS) + len(LIMBS)
_LIMB_ENDS = [[KEYPOINTS.index(limb[side]) for limb in LIMBS] for side in (0, 1)]


def draw_pose(keypoints: Tensor, height: int, width: int) -> Tensor:
    """A map per joint and per limb: Gaussian blobs and ridges weighted by confidence.

    Args:
        keypoints: [..., K, 3], x and y as shares of the picture.
        height, width: of the maps in cells.

    Returns:
        [..., K + limbs, height, width]
    """
    x, y = keypoints[..., 0] * width, keypoints[..., 1] * height
    columns = torch.arange(width, device=keypoints.device) + 0.5
    rows = torch.arange(height, device=keypoints.device) + 0.5
    across, down = _blob(columns - x[..., None]), _blob(rows - y[..., None])
    joints = (keypoints[..., 2:] * down)[..., :, None] * across[..., None, :]

    start, end = (keypoints[..., indices, :] for indices in _LIMB_ENDS)
    seen = torch.minimum(start[..., 2], end[..., 2])[..., None, None]
    to_right = columns - (start[..., 0] * width)[..., None]
    to_bottom = rows - (start[..., 1] * height)[..., None]
    along_x, along_y = (end - start)[..., 0, None] * width, (end - start)[..., 1, None] * height
    length = (along_x.square() + along_y.square()).clamp(min=1e-6)
    share = (to_bottom * along_y / length)[..., :, None] + (to_right * along_x / length)[..., None, :]
    share = share.clamp(0, 1)  # of the way along the limb, where the cell is nearest to it
    right = to_right[..., None, :] - share * along_x[..., None]
    bottom = to_bottom[..., :, None] - share * along_y[..., None]
    return torch.cat([joints, seen * torch.exp((right.square() + bottom.square()) / (-2 * _SPREAD**2))], dim=-3)


def _blob(distance: Tensor) -> Tensor:
    return torch.exp(distance.square() / (-2 * _SPREAD**2))


class PoseCondition(nn.Module):
    """A small convolutional encoder per frame; the frames of one latent are then joined."""

    def __init__(self, pose_channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(_NUM_MAPS, pose_channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(pose_channels, pose_channels, _CELLS_PER_LATENT, stride=_CELLS_PER_LATENT)
        self.join = nn.Conv2d(TEMPORAL_FACTOR * pose_channels, pose_channels, 1)
        # Of a map only a few cells differ from zero: with the usual weights the three layers would hush it.
        for layer, times in ((self.conv_1, 2.0), (self.conv_2, 4.0), (self.join, 2.0)):
            layer.weight.data.mul_(times)

    def forward(self, keypoints: Tensor, pose_on: Tensor, height: int, width: int) -> Tensor:
        """Keypoints [B, F, K, 3] of F = 4 (T - 1) + 1 frames to [B, P, T, height, width]; zeros where pose is off."""
        num_latents = num_latent_frames(keypoints.shape[1])
        latents = keypoints.new_zeros(len(keypoints), num_latents, self.join.out_channels, height, width)
        if pose_on.any():  # drawing the maps of the other samples would cost as much
            latents = latents.index_put((pose_on,), self._encode(keypoints[pose_on], height, width))
        return latents.transpose(1, 2)

    def _encode(self, keypoints: Tensor, height: int, width: int) -> Tensor:
        """[B, F, K, 3] to [B, T, P, height, width]."""
        batch, num_frames = keypoints.shape[:2]
        maps = draw_pose(keypoints, height * _CELLS_PER_LATENT, width * _CELLS_PER_LATENT).flatten(0, 1)
        frames = self.conv_2(functional.silu(self.conv_1(maps))).unflatten(0, (batch, num_frames))
        first = frames[:, :1].expand(-1, TEMPORAL_FACTOR, -1, -1, -1)
        frames = torch.cat([first, frames[:, 1:]], dim=1).unflatten(1, (-1, TEMPORAL_FACTOR))
        joined = self.join(functional.silu(frames.flatten(2, 3).flatten(0, 1)))
        return joined.unflatten(0, (batch, -1))
