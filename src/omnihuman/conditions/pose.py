"""Pose: keypoint heatmaps, encoded with adjacent frames and stacked on the noisy latent's channels (sec. 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.batch import KEYPOINTS
from omnihuman.encoders.video_codec import TEMPORAL_FACTOR

_HEATMAPS_PER_LATENT = 2
"""Heatmap cells along one side of a latent position."""
_SPREAD = 0.7
"""Standard deviation of a keypoint's blob in heatmap cells."""


def draw_heatmaps(keypoints: Tensor, height: int, width: int) -> Tensor:
    """Gaussian blobs weighted by confidence.

    Args:
        keypoints: [B, F, K, 3], x and y as shares of the picture.
        height, width: of the heatmaps in cells.

    Returns:
        [B, F, K, height, width]
    """
    x, y, confidence = (keypoints[..., i, None] for i in range(3))
    columns = torch.arange(width, device=keypoints.device) + 0.5
    rows = torch.arange(height, device=keypoints.device) + 0.5
    across = torch.exp(-(((columns - x * width) / _SPREAD) ** 2) / 2)
    down = torch.exp(-(((rows - y * height) / _SPREAD) ** 2) / 2)
    return (confidence * down)[..., :, None] * across[..., None, :]


class PoseCondition(nn.Module):
    """A small convolutional encoder per frame; the frames of one latent are then joined."""

    def __init__(self, pose_channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(len(KEYPOINTS), pose_channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(pose_channels, pose_channels, 3, stride=_HEATMAPS_PER_LATENT, padding=1)
        self.join = nn.Conv2d(TEMPORAL_FACTOR * pose_channels, pose_channels, 1)
        # A pose says nothing until it has been trained, so that the stage before is not disturbed.
        for parameter in self.join.parameters():
            nn.init.zeros_(parameter)

    def forward(self, keypoints: Tensor, pose_on: Tensor, height: int, width: int) -> Tensor:
        """Keypoints [B, F, K, 3] to [B, P, T, h, w]; zeros where pose is off."""
        batch, num_frames = keypoints.shape[:2]
        cells = (height * _HEATMAPS_PER_LATENT, width * _HEATMAPS_PER_LATENT)
        heatmaps = draw_heatmaps(keypoints, *cells).reshape(batch * num_frames, len(KEYPOINTS), *cells)
        frames = self.conv_2(functional.silu(self.conv_1(heatmaps))).reshape(batch, num_frames, -1, height, width)
        first = frames[:, :1].expand(-1, TEMPORAL_FACTOR, -1, -1, -1)
        frames = torch.cat([first, frames[:, 1:]], dim=1)
        num_latents = frames.shape[1] // TEMPORAL_FACTOR
        joined = self.join(functional.silu(frames.reshape(batch * num_latents, -1, height, width)))
        latents = joined.reshape(batch, num_latents, -1, height, width).transpose(1, 2)
        return latents * pose_on[:, None, None, None, None]
