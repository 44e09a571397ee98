"""Reference picture: the same backbone encodes it; its tokens are packed with the video's (OmniHuman-1, sec. 3.2)."""

import torch
from torch import Tensor


def reference_positions(height: int, width: int, device: torch.device) -> Tensor:
    """Positions [h w, 3] (time, row, column) of reference tokens: the temporal part is zero."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def reference_channels(reference: Tensor, pose: Tensor) -> Tensor:
    """The picture with its own pose [B, P, 1, h, w] in the model's input layout [B, 2 C + 1 + 2 P, 1, h, w].

    It is given both as the latent itself and in the condition channels, with the mask at one: a clean frame looks alike
    whether it is the reference or a motion frame, and only its position tells them apart.
    """
    frame = reference[:, :, None]
    mask = torch.ones_like(frame[:, :1])
    return torch.cat([frame, frame, mask, pose, pose], dim=1)
