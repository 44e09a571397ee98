"""The published VAE on tiny random weights: parity with diffusers, streams, tiles, refusals."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_checkpoints import save_vae
from torch import Tensor

from omnihuman.encoders.factory import Choice, video_codec, weights_sha256
from omnihuman.encoders.wan_vae import Tiling, WanVae
from omnihuman.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vae")
    save_vae(path)
    return path


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(folder, low_cpu_mem_usage=False).eval().requires_grad_(False)


def video(frames: int, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def normalised(reference: Any, latents: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(reference.config[name]).reshape(1, -1, 1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    return (latents - mean) / std


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_encode_and_decode_equal_diffusers(folder: Path, reference: Any, frames: int) -> None:
    codec = WanVae(str(folder))
    mode = reference.encode(video(frames)).latent_dist.mode()
    latents = codec.encode(video(frames))
    assert latents.shape == (1, 16, (frames + 3) // 4, 4, 6) and codec.num_channels == 16
    torch.testing.assert_close(latents, normalised(reference, mode), rtol=0, atol=1e-5)
    decoded = codec.decode(latents)
    assert decoded.shape == (1, 3, frames, 32, 48)
    torch.testing.assert_close(decoded.clamp(-1, 1), reference.decode(mode).sample, rtol=0, atol=1e-5)


def test_tiles_equal_those_of_diffusers_and_differ_from_the_whole(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    tiled: Any = AutoencoderKLWan.from_pretrained(folder, low_cpu_mem_usage=False).eval().requires_grad_(False)
    tiled.enable_tiling(32, 32, 24, 24)
    codec, whole = WanVae(str(folder), Tiling(32, 24)), WanVae(str(folder))
    large = video(9, 40, 72)
    mode = tiled.encode(large).latent_dist.mode()
    latents = codec.encode(large)
    torch.testing.assert_close(latents, normalised(tiled, mode), rtol=0, atol=1e-5)
    torch.testing.assert_close(codec.decode(latents).clamp(-1, 1), tiled.decode(mode).sample, rtol=0, atol=1e-5)
    assert (whole.encode(large) - latents).abs().max() > 1e-3
    small = video(5, 32, 32)
    torch.testing.assert_close(codec.encode(small), whole.encode(small), rtol=0, atol=0)


@pytest.mark.parametrize("tiling", [None, Tiling(32, 24)])
def test_a_stream_equals_the_whole(folder: Path, reference: Any, tiling: Tiling | None) -> None:
    codec = WanVae(str(folder), tiling)
    pixels = video(17, 32, 48)
    latents = codec.encode(pixels)
    encoded = list(codec.encode_stream([pixels[:, :, :1], *pixels[:, :, 1:].split(4, dim=2)]))
    torch.testing.assert_close(torch.cat(encoded, dim=2), latents, rtol=0, atol=1e-5)
    parts = list(codec.decode_stream(latents[:, :, t : t + 1] for t in range(5)))
    assert [part.shape[2] for part in parts] == [1, 4, 4, 4, 4]
    torch.testing.assert_close(torch.cat(parts, dim=2), codec.decode(latents), rtol=0, atol=1e-5)


def test_two_streams_at_once_do_not_mix_and_gradients_stay_on_for_the_caller(folder: Path) -> None:
    codec = WanVae(str(folder))
    one, two = codec.encode(video(9)), codec.encode(video(13))[:, :, :3]
    together = list(zip(codec.decode_stream(one.split(1, 2)), codec.decode_stream(two.split(1, 2)), strict=True))
    for part, latents in enumerate((one, two)):
        joined = torch.cat([pair[part] for pair in together], dim=2)
        torch.testing.assert_close(joined, codec.decode(latents), rtol=0, atol=0)
    next(codec.decode_stream(one.split(1, 2)))
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_stream_keeps_memory_of_a_fixed_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first chunks the cache holds the same number of floats, however long the video is."""
    codec = WanVae(str(folder))
    held: list[int] = []
    whole = codec._decode_tile

    def counting(latent: Tensor, cache: Any) -> Any:
        decoded, cache = whole(latent, cache)
        held.append(sum(entry.untyped_storage().nbytes() for entry in cache if isinstance(entry, Tensor)))
        return decoded, cache

    monkeypatch.setattr(codec, "_decode_tile", counting)
    latent = codec.encode(video(1))

    def endless() -> Iterator[Tensor]:
        for _ in range(12):
            yield latent

    for _ in codec.decode_stream(endless()):
        pass
    assert held[0] > 0 and len(set(held[2:])) == 1


def test_a_latent_never_sees_a_later_frame(folder: Path) -> None:
    codec = WanVae(str(folder))
    changed = video(17)
    changed[:, :, 9:] = 0.3  # frames 9..16 are latents 3 and 4
    before, after = codec.encode(video(17)), codec.encode(changed)
    torch.testing.assert_close(before[:, :, :3], after[:, :, :3], rtol=0, atol=0)
    assert (before[:, :, 3:] - after[:, :, 3:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("shape", "said"), [((12, 32, 32), "12 frames.*4k \\+ 1"), ((9, 36, 32), "32 x 36.*multiples of 8")]
)
def test_surplus_frames_and_pixels_are_refused(folder: Path, shape: tuple[int, int, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        WanVae(str(folder)).encode(video(*shape))


def test_a_stream_in_other_chunks_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="chunk 1 of a video has 3 frames: the codec takes 4"):
        list(WanVae(str(folder)).encode_stream([video(1), video(3)]))


def test_other_factors_are_refused_by_what_is_declared_and_by_what_the_layers_do(folder: Path, tmp_path: Path) -> None:
    declared = tmp_path / "declared"
    shutil.copytree(folder, declared)
    config = json.loads((declared / "config.json").read_text())
    (declared / "config.json").write_text(json.dumps(config | {"scale_factor_spatial": 16}))
    save_vae(tmp_path / "built", temperal_downsample=[False, False, True])
    for path, came in ((declared, "4 x 16 x 16"), (tmp_path / "built", "2 x 8 x 8")):
        with pytest.raises(UserError, match=rf"a VAE of {came} came, but 4 x 8 x 8 is expected"):
            WanVae(str(path))
    del config["scale_factor_spatial"], config["scale_factor_temporal"]
    (declared / "config.json").write_text(json.dumps(config))
    assert WanVae(str(declared)).num_channels == 16, "older configs declare nothing"


def test_half_precision_gives_its_results_in_the_callers(folder: Path) -> None:
    codec = WanVae(str(folder), dtype=torch.bfloat16)
    latents = codec.encode(video(5))
    assert latents.dtype == torch.float32
    exact = WanVae(str(folder)).encode(video(5))
    assert 0 < (latents - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_factory_loads_once_and_knows_the_hash(folder: Path) -> None:
    codec = video_codec(Choice("wan", str(folder)))
    assert codec is video_codec(Choice("wan", str(folder))) and codec.name == "wan"
    assert len(weights_sha256(codec)) == 64
    with pytest.raises(UserError, match=r"encode\.video_weights: .* but 0123"):
        video_codec(Choice("wan", str(folder), "0123"))
    assert isinstance(video_codec(Choice("wan", str(folder), weights_sha256(codec)), 32, 24), WanVae)
