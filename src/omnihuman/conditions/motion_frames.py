"""Motion frames: a segment's first latents are the last five frames of the segment before (OmniHuman-1, sec. 3.4).

Five pixel frames are 1 + 4 frames and so two latents of the causal codec: exactly a prefix of a longer encoding.
"""

import torch
from torch import Tensor

NUM_MOTION_FRAMES = 5
NUM_MOTION_LATENTS = 2


def motion_mask(motion_on: Tensor, num_latents: int) -> Tensor:
    """bool [B, T]: which latent frames are given clean."""
    position = torch.arange(num_latents, device=motion_on.device)
    return motion_on[:, None] & (position < NUM_MOTION_LATENTS)


def put_back(latents: Tensor, motion: Tensor, mask: Tensor) -> Tensor:
    """Replaces masked frames of `latents` [B, C, T, h, w] by the clean ones; done at every solver step."""
    clean = torch.zeros_like(latents)
    given = min(motion.shape[2], latents.shape[2])  # a single picture is shorter than the motion frames
    clean[:, :, :given] = motion[:, :, :given]
    return torch.where(mask[:, None, :, None, None], clean, latents)


def condition_channels(latents: Tensor, mask: Tensor, reference: Tensor) -> Tensor:
    """Condition latent and mask channel [B, C + 1, T, h, w].

    A given frame shows itself with mask 1; any other shows the reference picture [B, C, h, w] with mask 0, as the frame
    from which it departs: zeros where there is no reference.
    """
    given = mask[:, None, :, None, None].to(latents)
    shown = torch.where(given.bool(), latents, reference[:, :, None])
    return torch.cat([shown, given.expand(-1, 1, -1, *latents.shape[3:])], dim=1)
