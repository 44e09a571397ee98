"""Published encoders at full size, without their weights: on the meta device nothing is allocated.

Sizes from the models' own config.json and cards. T5Gemma2's full configuration is not known here without its hub page.
"""

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import nn
from transformers import (
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperModel,
)

from omnihuman.encoders.video_codec import SPATIAL_FACTOR, TEMPORAL_FACTOR

WAV2VEC2_LARGE = Wav2Vec2Config(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, do_stable_layer_norm=True,
    feat_extract_norm="layer", conv_bias=True,
)  # fmt: skip
WHISPER_LARGE_V3 = WhisperConfig(
    d_model=1280, encoder_layers=32, decoder_layers=32, encoder_attention_heads=20, decoder_attention_heads=20,
    encoder_ffn_dim=5120, decoder_ffn_dim=5120, num_mel_bins=128, vocab_size=51866,
)  # fmt: skip
UMT5_XXL = UMT5Config(
    d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, vocab_size=256384, feed_forward_proj="gated-gelu"
)
PUBLISHED: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    # how it is built, parameters, tensors
    "Wan2.1 VAE": (AutoencoderKLWan, 126_892_531, 194),
    "wav2vec2-base": (lambda: Wav2Vec2Model(Wav2Vec2Config()), 94_371_712, 211),
    "wav2vec2-large": (lambda: Wav2Vec2Model(WAV2VEC2_LARGE), 315_438_720, 422),
    "whisper-large-v3, encoder": (lambda: WhisperModel(WHISPER_LARGE_V3).encoder, 636_968_960, 487),
    "umt5-xxl, encoder": (lambda: UMT5EncoderModel(UMT5_XXL), 5_680_910_336, 243),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_configurations_have_the_published_size(name: str):
    build, parameters, tensors = PUBLISHED[name]
    with torch.device("meta"):
        model = build()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors


def test_the_full_vae_has_the_factors_of_every_codec_here():
    with torch.device("meta"):
        config = AutoencoderKLWan().config
    assert (config["scale_factor_temporal"], config["scale_factor_spatial"]) == (TEMPORAL_FACTOR, SPATIAL_FACTOR)
    assert len(config["latents_mean"]) == len(config["latents_std"]) == config["z_dim"] == 16
