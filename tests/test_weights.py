"""Where weights are found, what they hash to, and what people are told when they are not there."""

import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_checkpoints import save_t5, save_umt5, save_vae, save_wav2vec2

from omnihuman.encoders.factory import Choice, speech_encoder, text_encoder, video_codec
from omnihuman.encoders.t5 import T5
from omnihuman.encoders.wan_vae import WAN_VAE, WanVae
from omnihuman.encoders.weights import find_weights
from omnihuman.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def test_a_component_is_found_alone_and_in_its_pipeline_with_one_hash(tmp_path: Path) -> None:
    save_vae(tmp_path / "alone")
    shutil.copytree(tmp_path / "alone", tmp_path / "pipeline" / "vae")
    alone, inside = (find_weights(str(tmp_path / name), WAN_VAE) for name in ("alone", "pipeline"))
    assert alone.sha256() == inside.sha256() and alone.folder != inside.folder
    (tmp_path / "alone" / "README.md").write_text("not loaded")
    assert find_weights(str(tmp_path / "alone"), WAN_VAE).sha256() == alone.sha256()
    with (tmp_path / "alone" / "config.json").open("a") as file:
        file.write("\n")
    assert find_weights(str(tmp_path / "alone"), WAN_VAE).sha256() != inside.sha256()


@pytest.mark.parametrize("given", ["/another/machine/vae", "owner/vae", "owner/vae@v1", "vae"])
def test_weights_that_lie_elsewhere_here_are_found_by_their_name(given: str, tmp_path: Path, monkeypatch) -> None:
    save_vae(tmp_path / "store" / "vae")
    monkeypatch.setenv("OMNIHUMAN_WEIGHTS", str(tmp_path / "store"))
    assert find_weights(given, WAN_VAE).folder == tmp_path / "store" / "vae"
    with pytest.raises(UserError, match=r"no folder /another/place, nor one of its name in .*OMNIHUMAN_WEIGHTS"):
        find_weights("/another/place", WAN_VAE)


def test_a_tokenizer_belongs_to_the_hash(tmp_path: Path) -> None:
    save_umt5(tmp_path)
    before = find_weights(str(tmp_path), T5)
    assert before.tokenizer == tmp_path / "tokenizer" and before.folder == tmp_path / "text_encoder"
    digest = before.sha256()
    with (tmp_path / "tokenizer" / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert find_weights(str(tmp_path), T5).sha256() != digest


def test_shards_are_loaded_and_hashed(tmp_path: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    save_vae(tmp_path / "one")
    AutoencoderKLWan.from_pretrained(tmp_path / "one", low_cpu_mem_usage=False).save_pretrained(
        tmp_path / "many", max_shard_size="30KB"
    )
    found = find_weights(str(tmp_path / "many"), WAN_VAE)
    assert len(found.files) > 3
    video = torch.zeros(1, 3, 1, 16, 16)
    torch.testing.assert_close(*(WanVae(str(tmp_path / name)).encode(video) for name in ("one", "many")))


KINDS = [
    (lambda weights: video_codec(Choice("wan", weights)), "video", "Wan-AI/Wan2.1", "encode.video_codec=cosine"),
    (lambda weights: text_encoder(Choice("t5", weights), 8), "text", "Wan-AI/Wan2.1", "text_encoder=hashed_words"),
    (lambda weights: text_encoder(Choice("t5gemma2", weights), 8), "text", "Motif-Technologies/", "=hashed_words"),
    (lambda weights: speech_encoder(Choice("wav2vec2", weights)), "speech", "facebook/wav2vec2-base-960h", "=log_mel"),
    (lambda weights: speech_encoder(Choice("whisper", weights)), "speech", "openai/whisper-base", "=log_mel"),
]


@pytest.mark.parametrize(("load", "kind", "hub_id", "without"), KINDS)
def test_missing_weights_name_file_hub_id_licence_and_option(load, kind, hub_id, without, tmp_path: Path) -> None:
    for weights, what in (("", "is empty"), ("/no/such/folder", "no folder"), (str(tmp_path), "no config.json")):
        with pytest.raises(UserError, match=what) as caught:
            load(weights)
        said = str(caught.value)
        assert f"encode.{kind}_weights" in said and hub_id in said and without in said and "Apache-2.0" in said


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "vae.pth"])
def test_pickles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"only pickles \({name}\).*safetensors") as caught:
        find_weights(str(tmp_path), WAN_VAE)
    assert "encode.video_codec=cosine" in str(caught.value)


@pytest.mark.parametrize("offline", [True, False])
def test_an_absent_hub_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(UserError, match="owner/name@v1 is not on this machine and the hub cannot be reached") as caught:
        find_weights("owner/name@v1", WAN_VAE)
    assert time.monotonic() - start < 5
    assert "Wan-AI/Wan2.1-T2V-1.3B-Diffusers (Apache-2.0" in str(caught.value)


def test_the_hubs_cache_is_used_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The layout in which `hf download` leaves a repository."""
    from huggingface_hub import constants

    repository = tmp_path / "models--owner--name"
    save_vae(repository / "snapshots" / ("0" * 40) / "vae")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert WanVae("owner/name").weights.folder == repository / "snapshots" / ("0" * 40) / "vae"


def test_incomplete_weights_are_refused_with_a_list(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    tensors = load_file(tmp_path / "vae" / WEIGHTS)
    del tensors["encoder.conv_in.weight"]
    save_file(tensors, tmp_path / "vae" / WEIGHTS, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks encoder\.conv_in\.weight: "):
        WanVae(str(tmp_path / "vae"))
    save_t5(tmp_path / "t5")
    tensors = load_file(tmp_path / "t5" / "model.safetensors")
    del tensors["shared.weight"]
    save_file(tensors, tmp_path / "t5" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks .*shared\.weight"):
        text_encoder(Choice("t5", str(tmp_path / "t5")), 8)


def test_damaged_and_foreign_files_are_the_users_errors(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae")
    save_wav2vec2(tmp_path / "speech")
    with pytest.raises(UserError, match="holds a model of type wav2vec2"):
        speech_encoder(Choice("whisper", str(tmp_path / "speech")))
    whole = (tmp_path / "vae" / WEIGHTS).read_bytes()
    for damaged in (whole[:100], b"", b"\x80\x04pickle"):
        (tmp_path / "vae" / WEIGHTS).write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be loaded as AutoencoderKLWan"):
            WanVae(str(tmp_path / "vae"))
    (tmp_path / "vae" / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        WanVae(str(tmp_path / "vae"))
