"""The step `encode` with published encoders on tiny random weights, and what is made with them afterwards."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.test_pose_estimator import BOB, PERSON, write_detector, write_pose
from tests.tiny_checkpoints import save_t5, save_t5gemma2, save_vae, save_wav2vec2, save_whisper

from omnihuman.batch import Sound
from omnihuman.config.schema.encode import Encode
from omnihuman.data.encoding_plan import Inputs, plan_encoding
from omnihuman.data.manifest import CAPTIONS, CLIPS, DECISIONS, SOURCES, write_table
from omnihuman.data.precompute import encode
from omnihuman.data.shard_reading import load_clip
from omnihuman.data.shards import Encoders, load_empty_text
from omnihuman.encoders import factory
from omnihuman.encoders.factory import Choice
from omnihuman.encoders.pose_estimator import estimator_files
from omnihuman.encoders.weights import files_sha256
from omnihuman.errors import UserError
from omnihuman.media.worker import RunGuarded, run_guarded
from omnihuman.media.write import write_video

SMALL = Encode(num_frames=9, windows_per_clip=2, resolutions=(1024,), max_text_tokens=6, deadline_seconds=100.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two clips that are fit for everything; the second has no sound."""
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMNIHUMAN_WORKERS", "1")
    rng, sources, clips, decisions = np.random.default_rng(0), [], [], []
    for index, caption in enumerate(("a red shirt", "")):
        name = f"v{index}"
        sound = None if index else Sound(rng.normal(0, 0.1, 16000).astype(np.float32), 16000)
        write_video(tmp_path / f"{name}.mp4", rng.integers(0, 255, (20, 64, 64, 3), np.uint8), 25.0, sound)
        row = {"source_id": name, "path": f"{name}.mp4", "keypoints_path": "", "status": "ok", "sha256": str(index)}
        sizes = {"caption": caption, "identity": name, "split": "train", "width": 64, "height": 64}
        tracks = {"keypoints_sha256": "", "audio_codec": "aac" if sound else ""}
        sources.append({field.name: None for field in SOURCES} | row | sizes | tracks)
        times = {"start_seconds": 0.0, "end_seconds": 0.8}
        clip = {"clip_id": f"c{index}", "source_id": name, "index": 0, "status": "ok", "error": ""}
        clips.append({field.name: None for field in CLIPS} | clip | times)
        decisions += [
            {field.name: None for field in DECISIONS}
            | {"clip_id": f"c{index}", "modality": modality, "eligible": True, "reason": ""}
            for modality in ("text", "audio", "pose")
        ]
    write_table(sources, SOURCES, tmp_path / "sources.parquet")
    write_table(clips, CLIPS, tmp_path / "clips.parquet")
    write_table(decisions, DECISIONS, tmp_path / "decisions.parquet")
    captions = [{"clip_id": f"c{index}", "caption": source["caption"]} for index, source in enumerate(sources)]
    write_table(captions, CAPTIONS, tmp_path / "captions.parquet")
    return tmp_path


def inputs_of(folder: Path) -> Inputs:
    return Inputs(folder, *(folder / f"{name}.parquet" for name in ("clips", "captions", "decisions")))


def run(config: Encode, folder: Path, guarded: RunGuarded = run_guarded) -> Path:
    encoded = folder / "encoded"
    encode(plan_encoding(config, inputs_of(folder)), encoded, guarded)
    return encoded


def save(folder: Path, **networks: Callable[[Path], None]) -> dict[str, str]:
    for kind, write in networks.items():
        write(folder / kind)
    return {f"{kind}_weights": str(folder / kind) for kind in networks}


FAMILIES = [("wav2vec2", save_wav2vec2, "t5", save_t5), ("whisper", save_whisper, "t5gemma2", save_t5gemma2)]


@pytest.mark.parametrize(("speech", "save_speech", "text", "save_text"), FAMILIES)
def test_two_clips_are_encoded_and_the_encoders_named(folder, speech, save_speech, text, save_text) -> None:
    weights = save(folder, video=save_vae, speech=save_speech, text=save_text)
    config = replace(SMALL, video_codec="wan", speech_encoder=speech, text_encoder=text, **weights)
    encoded = run(config, folder)
    samples = pd.read_parquet(encoded / "samples.parquet")
    assert samples["status"].tolist() == ["ok", "ok"], samples["error"].tolist()
    first, second = (load_clip(encoded / "shard-00000.safetensors", name) for name in ("c0", "c1"))
    assert first.latents.shape == (2, 16, 3, 4, 4) and first.latents.dtype == np.float16
    assert first.references.shape == (3, 16, 4, 4)
    assert first.speech.shape == second.speech.shape == (20, 3, 16) and first.speech.dtype == np.float16
    assert first.speech.any() and not second.speech.any()
    assert first.text.shape == (4, 16) and second.text.shape == (1, 16)
    np.testing.assert_allclose(second.text, load_empty_text(encoded), rtol=0, atol=2e-3)

    made = Encoders.load(encoded / "encoders.json")
    assert (made.video_codec, made.speech_encoder, made.text_encoder) == ("wan", speech, text)
    assert (made.widths.latent_channels, made.widths.text_width) == (16, 16)
    assert (made.widths.speech_width, made.widths.speech_layers) == (16, 3)
    loaded = factory.video_codec(Choice("wan", weights["video_weights"]))
    assert made.video_weights_sha256 == factory.weights_sha256(loaded)
    assert len({made.video_weights_sha256, made.speech_weights_sha256, made.text_weights_sha256}) == 3
    # The model's own videos go the way back with the same weights, and with no others.
    save_vae(folder / "video", z_dim=16, base_dim=6)
    factory.forget()
    with pytest.raises(UserError, match="was encoded with"):
        factory.video_codec(Choice("wan", made.video_weights, made.video_weights_sha256))


@pytest.mark.slow
def test_the_same_weights_elsewhere_are_the_same_work(folder: Path) -> None:
    save(folder, video=save_vae)
    config = replace(SMALL, video_codec="wan", video_weights=str(folder / "video"))
    before = load_clip(run(config, folder) / "shard-00000.safetensors", "c0")
    (folder / "video").rename(folder / "moved")
    again = replace(config, video_weights=str(folder / "moved"))
    encoded = run(again, folder, lambda *rest: pytest.fail("encoded again"))
    np.testing.assert_array_equal(load_clip(encoded / "shard-00000.safetensors", "c0").latents, before.latents)


@pytest.mark.slow
def test_tiles_come_from_the_configuration(folder: Path) -> None:
    save(folder, video=save_vae)
    config = replace(SMALL, video_codec="wan", video_weights=str(folder / "video"))
    whole = load_clip(run(config, folder) / "shard-00000.safetensors", "c0")
    tiled = replace(config, video_tiling=True, video_tile_pixels=16, video_tile_stride_pixels=8)
    encoded = run(tiled, folder)
    assert np.abs(load_clip(encoded / "shard-00000.safetensors", "c0").latents - whole.latents).max() > 1e-3
    told = json.loads((encoded / "encoders.json").read_text())
    assert (told["video_tile_pixels"], told["video_tile_stride_pixels"]) == (16, 8)


@pytest.mark.slow
def test_a_pose_that_nobody_declared_is_found_again(folder: Path) -> None:
    poses = folder / "dwpose"
    poses.mkdir()
    write_detector(poses / "yolox_l.onnx", (BOB, PERSON, 0.9, 0.0))
    peaks = np.stack([np.arange(133) % 90 + 2, np.arange(133) % 120 + 2], axis=1)
    write_pose(poses / "dw-ll_ucoco_384.onnx", peaks, np.full(133, 0.8))
    assert not load_clip(run(SMALL, folder) / "shard-00000.safetensors", "c0").keypoints.any()
    config = replace(SMALL, pose_weights=str(poses), pose_sha256=files_sha256(estimator_files(poses)))
    found = load_clip(run(config, folder) / "shard-00000.safetensors", "c0").keypoints
    assert found.shape == (20, 17, 3) and found[..., 2] == pytest.approx(0.8, abs=1e-3)
    with pytest.raises(UserError, match=r"encode\.pose_sha256 says 0"):
        run(replace(config, pose_sha256="0"), folder)


def test_missing_weights_stop_the_step_before_anything_is_decoded(folder: Path) -> None:
    with pytest.raises(UserError, match=r"encode\.video_weights: no folder /no/such"):
        run(replace(SMALL, video_codec="wan", video_weights="/no/such"), folder)
    assert not (folder / "encoded").exists()


@pytest.mark.slow
def test_weights_beyond_the_memory_of_a_worker_are_an_error_of_the_clip(folder: Path) -> None:
    save(folder, video=lambda path: save_vae(path, base_dim=192))
    config = replace(SMALL, video_codec="wan", video_weights=str(folder / "video"), memory_megabytes=60)
    with pytest.raises(UserError, match="none of 2 eligible clips could be encoded"):
        run(config, folder)
