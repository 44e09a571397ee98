"""Reference picture: the same backbone encodes it; its tokens are packed with the video's (OmniHuman-1, sec. 3.2)."""

import torch
from torch import Tensor


def reference_channels(reference: Tensor) -> Tensor:
    """The picture [B, C, 1, h, w] in the input layout of the base [B, 2 C + 1, 1, h, w].

    It is given both as the latent itself and in the condition channels, with the mask at one: a clean frame looks alike
    whether it is the reference or a motion frame, and only its position tells them apart.
    """
    return torch.cat([reference, reference, torch.ones_like(reference[:, :1])], dim=1)
