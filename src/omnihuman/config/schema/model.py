"""Shape of the multimodal diffusion transformer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """Sizes of the MMDiT. Channel counts of latents, sound and text come with the encoded data."""

    width: int = 192
    num_heads: int = 6
    num_dual_blocks: int = 2
    num_single_blocks: int = 4
    mlp_ratio: float = 4.0
    patch_size: int = 1
    """Spatial patch in latent positions."""
    rope_theta: float = 10_000.0
    rope_axes: tuple[int, int, int] = (8, 12, 12)
    """Channels of a head that rotate with time, height and width; they add up to the head's width."""
    audio_width: int = 96
    pose_channels: int = 16
