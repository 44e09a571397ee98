"""Shape of the multimodal diffusion transformer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """Sizes of the MMDiT. Channel counts of latents, sound and text come with the encoded data."""

    width: int = 192
    num_heads: int = 6
    num_dual_blocks: int = 2
    num_single_blocks: int = 4
    """Blocks over video and text as one stream, without those of the decoder."""
    num_decoder_blocks: int = 0
    """Last blocks, which begin again from the embedded latents and see the blocks before in place of the text."""
    mlp_ratio: float = 4.0
    patch_size: int = 1
    """Spatial patch in latent positions."""
    rope_theta: float = 10_000.0
    rope_axes: tuple[int, int, int] = (8, 12, 12)
    """Channels of a head that rotate with time, height and width; they add up to the head's width."""
    text_attention_dual: bool = False
    """Whether dual blocks have a cross-attention to the text beside the joint one."""
    text_attention_single: bool = False
    image_width: int = 0
    """Width of picture embeddings that stand before the text, for bases that were trained with them; 0: none."""
    prediction: str = "velocity"
    """`velocity`: what the network says. `departure`: it says how the clean latent differs from the reference, from
    which the velocity follows; for narrow models trained from nothing."""
    audio_fusion: str = "cross_attention"
    """`cross_attention` in every block, or `joint_attention`: sound stands beside the text."""
    audio_width: int = 96
    audio_tokens: int = 4
    """Sound tokens of one latent frame."""
    pose_channels: int = 16
