"""Small inputs that several tests share."""

import numpy as np
import torch

from omnihuman.batch import Conditions, Widths
from omnihuman.conditions.audio import WINDOW
from omnihuman.config.schema.model import Model
from omnihuman.data.manifest import SAMPLES, write_table
from omnihuman.data.shards import EncodedClip, Encoders, save_empty_text, save_shard
from omnihuman.encoders.speech import LogMel
from omnihuman.encoders.text import HashedWords
from omnihuman.encoders.video_codec import CosineCodec
from omnihuman.model.checkpoint import ModelDescription
from omnihuman.model.omnihuman import OmniHumanTransformer

WIDTHS = Widths(
    latent_channels=CosineCodec().num_channels,
    text_width=64,
    speech_width=LogMel.width,
    speech_layers=1,
    num_keypoints=17,
)
CONFIG = Model(
    width=32,
    num_heads=2,
    num_dual_blocks=1,
    num_single_blocks=1,
    rope_axes=(4, 6, 6),
    audio_width=16,
    pose_channels=4,
    prediction="departure",
)
ENCODERS = Encoders(
    video_codec="cosine", video_weights="", video_weights_sha256="", video_tile_pixels=0, video_tile_stride_pixels=0,
    speech_encoder="log_mel", speech_weights="", speech_weights_sha256="",
    text_encoder="hashed_words", text_weights="", text_weights_sha256="", fps=25.0,
    num_frames=9, resolutions=(1024,), size_multiple=8, max_aspect=2.0, max_text_tokens=6,
    latent_channels=WIDTHS.latent_channels, speech_width=LogMel.width, speech_layers=1, text_width=64, num_keypoints=17,
)  # fmt: skip


EVERYTHING = ("text", "reference", "audio", "pose")
DESCRIPTION = ModelDescription("3_pose", "", "", 1, EVERYTHING, {"text": 2}, CONFIG, ENCODERS)


def random_model(seed: int = 0, config: Model = CONFIG, widths: Widths = WIDTHS) -> OmniHumanTransformer:
    """Every parameter random: zero-initialised layers would hide mistakes."""
    torch.manual_seed(seed)
    model = OmniHumanTransformer(config, widths)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.eval()


def random_conditions(
    batch: int = 2, num_latents: int = 3, height: int = 2, width: int = 3, seed: int = 0, widths: Widths = WIDTHS
) -> Conditions:
    """All conditions on, motion off."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    on = torch.ones(batch, dtype=torch.bool)
    return Conditions(
        text=normal(batch, 6, widths.text_width),
        text_mask=torch.arange(6)[None].expand(batch, -1) < torch.tensor([[4], [6]]).repeat(batch, 1)[:batch],
        reference=normal(batch, widths.latent_channels, height, width),
        reference_on=on,
        reference_keypoints=torch.rand(
            batch, widths.num_keypoints, 3, generator=torch.Generator().manual_seed(seed + 1)
        ),
        speech=normal(batch, num_latents, WINDOW, widths.speech_layers, widths.speech_width),
        speech_mask=torch.ones(batch, num_latents, WINDOW, dtype=torch.bool),
        audio_on=on,
        keypoints=torch.rand(batch, 4 * (num_latents - 1) + 1, widths.num_keypoints, 3, generator=draw),
        pose_on=on,
        motion=normal(batch, widths.latent_channels, 2, height, width),
        motion_on=~on,
    )


def random_clip(random: np.random.Generator, num_frames: int = 30, height: int = 4, width: int = 4) -> EncodedClip:
    """A clip of noise in the right shapes."""
    return EncodedClip(
        latents=random.standard_normal((2, WIDTHS.latent_channels, 3, height, width)).astype(np.float16),
        starts=np.array([0, num_frames - 9], np.int32),
        references=random.standard_normal((3, WIDTHS.latent_channels, height, width)).astype(np.float16),
        reference_frames=np.array([0, num_frames // 2, num_frames - 1], np.int32),
        speech=random.standard_normal((num_frames, 1, LogMel.width)).astype(np.float16),
        sound=random.integers(-9000, 9000, num_frames * 640).astype(np.int16),
        keypoints=random.random((num_frames, 17, 3)).astype(np.float32),
        text=random.standard_normal((4, 64)).astype(np.float16),
    )


def write_encoded(folder, eligible: list[tuple[bool, bool]], split: str = "train") -> None:
    """An encoded folder with one clip per (audio, pose) pair."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    clips = [(f"clip-{i}", random_clip(random)) for i in range(len(eligible))]
    save_shard(folder / "shard-00000.safetensors", clips, ENCODERS)
    rows = [
        {
            "clip_id": f"clip-{i}", "shard": "shard-00000.safetensors", "identity": str(i), "split": split,
            "area_pixels": 1024, "larger_area_pixels": 0, "width": 32, "height": 32, "num_windows": 2,
            "num_frames": 30, "caption": "", "audio_eligible": audio, "pose_eligible": pose, "status": "ok",
            "error": "",
        }
        for i, (audio, pose) in enumerate(eligible)
    ]  # fmt: skip
    write_table(rows, SAMPLES, folder / "samples.parquet")
    ENCODERS.save(folder / "encoders.json")
    save_empty_text(folder, HashedWords(ENCODERS.max_text_tokens).encode(""))
