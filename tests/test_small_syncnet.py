"""The small SyncNet: trained on people drawn as ellipses, it hears which sound belongs to which mouth of new ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.test_scorers import FPS, NUM_FRAMES, SECONDS, syllables, talking, voice

from omnihuman.batch import Sound
from omnihuman.config.schema.score import Score
from omnihuman.data.manifest import CLIPS, DECISIONS, SOURCES, write_table
from omnihuman.data.material import Material, holding
from omnihuman.data.own_syncnet import compare_held_out, train_syncnet
from omnihuman.data.scorers.registry import check_weights, scorers_for
from omnihuman.data.scorers.small_syncnet import lag_similarities, mouths_of
from omnihuman.data.syncnet_training import Speaker, contrast, fit
from omnihuman.data.trained_networks import networks_trained_on, note_network
from omnihuman.encoders.small_syncnet import (
    EMBEDDING,
    SmallSyncNet,
    TrainedOn,
    cepstra_of,
    load_small_syncnet,
    picture_windows,
    read_trained_on,
    save_small_syncnet,
    sound_windows,
)
from omnihuman.errors import UserError
from omnihuman.media.write import write_video
from omnihuman.storage.files import file_sha256

TOLD = TrainedOn(3, 2, ("CC0-1.0",), ("source-0", "source-1"), 1, 0, 0.9, 0.8, 1.0)


def speaker(seed: int) -> Speaker:
    opening = syllables(seed)
    sound = voice(opening)
    return Speaker(
        f"s{seed}", f"p{seed}", "CC0-1.0", mouths_of(talking(opening, sound)), cepstra_of(sound.samples, NUM_FRAMES)
    )


@pytest.fixture(scope="module")
def network() -> SmallSyncNet:
    torch.set_num_threads(1)
    return fit([speaker(seed) for seed in range(12)], steps=25, seed=0)


def test_new_people_in_step_are_told_from_shifted_and_swapped_sound(network: SmallSyncNet) -> None:
    comparison = compare_held_out(network, [speaker(seed) for seed in range(100, 110)])
    area, low, high = comparison.auc()
    assert area > 0.9 and 0.8 < low <= area <= high <= 1
    assert np.mean(np.abs(comparison.offsets) <= 2) > 0.8
    untrained = compare_held_out(SmallSyncNet().eval(), [speaker(seed) for seed in range(100, 110)])
    assert untrained.auc()[0] < 0.75


@pytest.mark.parametrize("lead", [-6, 0, 4])
def test_a_lag_is_positive_where_the_sound_leads(lead: int) -> None:
    embeddings = np.random.default_rng(0).normal(size=(90, EMBEDDING))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = lag_similarities(embeddings[10:70], embeddings[10 + lead : 70 + lead])
    assert found.argmax() - 15 == lead and found.max() == pytest.approx(1)


def test_windows_of_picture_and_sound_begin_together() -> None:
    mouths = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 28, 32, 3), np.uint8)
    cepstra = np.repeat(np.arange(12, dtype=np.float32), 4)[:, None] * np.ones((1, 13), np.float32)
    pictures, sounds = picture_windows(mouths), sound_windows(cepstra)
    assert pictures.shape == (8, 15, 28, 32) and sounds.shape == (8, 13, 20)
    np.testing.assert_allclose(32 * pictures[:, 0, 0, 0].numpy(), np.arange(8) - 5.5)
    np.testing.assert_allclose(32 * pictures[:, 12, 0, 0].numpy(), np.arange(8) + 4 - 5.5)
    np.testing.assert_allclose(sounds[:, 0, 0].numpy(), np.arange(8) - 5.5)
    np.testing.assert_allclose(sounds[:, 0, 19].numpy(), np.arange(8) + 4 - 5.5)


def test_the_next_moment_of_the_same_clip_is_no_opposite() -> None:
    network = SmallSyncNet().eval()
    draw = torch.Generator().manual_seed(0)
    pictures, sounds = torch.randn(3, 15, 28, 32, generator=draw), torch.randn(3, 13, 20, generator=draw)
    together = contrast(network, pictures, sounds, torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]))
    apart = contrast(network, pictures, sounds, torch.tensor([0, 0, 0]), torch.tensor([0, 5, 10]))
    alone = contrast(network, pictures[:1], sounds[:1], torch.tensor([0]), torch.tensor([0]))
    assert alone.item() == 0 and together.item() < apart.item()


def test_the_file_says_what_it_was_trained_on(network: SmallSyncNet, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_small_syncnet(network, TOLD, path)
    assert read_trained_on(path) == TOLD and b"source-1" in path.read_bytes()[:4000]
    config = Score(lip_sync="trained", lip_sync_weights=str(path), lip_sync_sha256=file_sha256(path))
    check_weights(scorers_for(config))
    (scorer,) = (scorer for scorer in scorers_for(config) if "lip_sync" in scorer.names)
    assert scorer.implementation == "trained" and scorer.version == "1 trained on 3 clips of 2 people"
    assert scorer.weights_sha256 == file_sha256(path) and "CC0-1.0" in scorer.licence
    opening = syllables(200)
    value, offset = scorer.measure(talking(opening, voice(opening)))
    late, late_offset = scorer.measure(talking(np.roll(opening, 8), voice(opening)))
    assert value.value > late.value + 1 and abs(offset.value) <= 1 and late_offset.value == pytest.approx(8, abs=1)
    restored = load_small_syncnet(path)
    one = speaker(0)
    assert torch.equal(restored.sound(sound_windows(one.cepstra)), network.sound(sound_windows(one.cepstra)))


def test_a_takedown_finds_the_network_that_knows_a_person(network: SmallSyncNet, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_small_syncnet(network, replace(TOLD, source_ids=("0123456789abcdef", "fedcba9876543210")), path)
    assert list(holding(Material(ids={"fedcba9876543210"}), [tmp_path])) == [path]
    assert not list(holding(Material(ids={"0123456789abcdff"}), [tmp_path]))


def test_networks_elsewhere_are_remembered(
    network: SmallSyncNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    assert networks_trained_on({"a"}) == ([], [])
    paths = [tmp_path / f"{name}.safetensors" for name in ("gone", "one", "other")]
    for path, ids in zip(paths, (("a",), ("a", "b"), ("c",)), strict=True):
        save_small_syncnet(network, replace(TOLD, source_ids=ids), path)
        note_network(path)
        note_network(path)
    paths[0].unlink()
    assert networks_trained_on({"a", "z"}) == ([paths[1]], [paths[0]])


def test_weights_from_clips_that_forbid_commercial_use_are_refused(network: SmallSyncNet, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_small_syncnet(network, replace(TOLD, licences=("CC BY-NC-SA 4.0", "CC0-1.0")), path)
    config = Score(lip_sync="trained", lip_sync_weights=str(path), lip_sync_sha256=file_sha256(path))
    with pytest.raises(UserError, match=r"may not be used commercially.*CC BY-NC-SA 4.0.*score.allow_non_commercial"):
        scorers_for(config)
    assert scorers_for(replace(config, allow_non_commercial=True))


def test_files_that_are_missing_or_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train-syncnet"):
        scorers_for(Score(lip_sync="trained"))
    with pytest.raises(UserError, match="cannot be read"):
        scorers_for(Score(lip_sync="trained", lip_sync_weights=str(tmp_path / "nothing")))


def write_clips(folder: Path, num_people: int) -> tuple[Path, Path, Path]:
    """Videos of ellipses with their tables, all of them fit to train sound; the last two people are held out."""
    rows = []
    for number in range(num_people):
        opening = syllables(number)
        clip, sound = talking(opening, voice(opening)), voice(opening)
        assert clip.keypoints is not None
        path = folder / f"p{number}.mp4"
        write_video(path, clip.frames.pixels, FPS, Sound(sound.samples, sound.sample_rate))
        np.savez(folder / f"p{number}.keypoints.npz", points=clip.keypoints.points, seconds=SECONDS)
        split = "test" if number >= num_people - 2 else "train"
        stated = {"source_id": f"s{number}", "path": str(path), "keypoints_path": str(path)[:-4] + ".keypoints.npz"}
        rows.append(stated | {"identity": f"p{number}", "split": split, "licence": "CC0-1.0", "status": "ok"})
    names = [f"c{number}" for number in range(num_people)]
    spans = {"index": 0, "start_seconds": 0.0, "end_seconds": NUM_FRAMES / FPS, "status": "ok", "error": ""}
    write_table([{field.name: None for field in SOURCES} | row for row in rows], SOURCES, folder / "sources.parquet")
    clips = [spans | {"clip_id": name, "source_id": f"s{number}"} for number, name in enumerate(names)]
    write_table(clips, CLIPS, folder / "clips.parquet")
    decisions = [
        {field.name: None for field in DECISIONS} | {"clip_id": name, "modality": "audio", "eligible": name != "c0"}
        for name in names
    ]
    write_table(decisions, DECISIONS, folder / "decisions.parquet")
    return folder, folder / "clips.parquet", folder / "decisions.parquet"


@pytest.mark.slow
def test_a_network_is_trained_on_the_clips_that_may_train_sound(tmp_path: Path) -> None:
    tables, output = write_clips(tmp_path, 6), tmp_path / "out/own.safetensors"
    told = train_syncnet(Score(), tables, output, steps=3, seed=0, max_clips=10)
    assert (told.num_clips, told.num_people, told.licences) == (3, 3, ("CC0-1.0",))
    assert told.source_ids == ("s1", "s2", "s3") and 0 <= told.auc_low <= told.auc <= told.auc_high <= 1
    assert read_trained_on(output) == told
    write_table([], DECISIONS, tables[2])
    with pytest.raises(UserError, match="0 clips of the training split"):
        train_syncnet(Score(), tables, output, steps=3, seed=0, max_clips=10)
