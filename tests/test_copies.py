"""Copies of one take are found, other takes of the same person are not, and no take is both trained and held out."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from omnihuman.batch import Sound
from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.data.copies import candidates, compare, groups
from omnihuman.data.duplicates import duplicates, numbered
from omnihuman.data.fingerprints import NUM_MARKS, Fingerprint, fingerprint, marks
from omnihuman.data.manifest import CLIPS, SOURCES, SOURCES_TABLE, STRIPS, read_table, write_table
from omnihuman.data.synthetic.plan import ClipPlan, plan_corpus
from omnihuman.data.synthetic.render import render_clip
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.write import write_video

ROOT = Path(__file__).parents[1]
TALK = ROOT.parent / "shared/media/talk"
RATE, FPS, STEP_FRAMES = 16000, 25, 3


def print_of(pixels: np.ndarray, samples: np.ndarray) -> Fingerprint:
    grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pixels])
    return fingerprint(grey, Sound(samples, RATE))


def through_a_file(pixels: np.ndarray, samples: np.ndarray, path: Path) -> Fingerprint:
    """Encoded anew, hard."""
    height, width = (side // 2 * 2 for side in pixels.shape[1:3])
    frames = [np.ascontiguousarray(picture[:height, :width]) for picture in pixels]
    write_video(path, frames, FPS, Sound(samples, RATE), crf=33, preset="ultrafast")
    sound = read_sound(path, RATE, 0.0, len(pixels) / FPS)
    assert sound is not None
    return print_of(read_frames(path, fps=FPS, short_side_pixels=160).pixels, sound.samples)


def copies_of(pixels: np.ndarray, samples: np.ndarray, late: int, path: Path) -> Iterator[tuple[str, Fingerprint]]:
    """Copies of the frames before the last `late`; the late one has these, too."""
    height, width = pixels.shape[1:3]
    edge = slice(round(0.04 * height), round(0.96 * height)), slice(round(0.04 * width), round(0.96 * width))
    end = len(pixels) - late
    sound = samples[: end * RATE // FPS]
    small = np.stack([cv2.resize(picture, (width // 2, height // 2)) for picture in pixels[:end]])
    yield "encoded anew", through_a_file(pixels[:end], sound, path / "a.mp4")
    yield "resized", through_a_file(small, sound, path / "b.mp4")
    yield "cropped", through_a_file(pixels[:end, *edge], sound, path / "c.mp4")
    yield "shifted", through_a_file(pixels[late:], samples[late * RATE // FPS :], path / "d.mp4")


@pytest.fixture(scope="module")
def takes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Three takes of one person before one wall, and one of another person."""
    corpus = SyntheticCorpus(num_identities=2, clips_per_identity=1, defective_share=0.0, unfit_share=0.0)
    first, other = (replace(plan, fps=FPS, num_frames=75) for plan in plan_corpus(corpus, 41))
    wall = first.scenes[0]
    plans: dict[str, ClipPlan] = {f"take {i}": replace(first, seed=(5, i), scenes=(wall,)) for i in range(3)}
    clips = {name: render_clip(plan) for name, plan in {**plans, "other": other}.items()}
    return {name: (np.stack(list(clip.frames)), clip.sound.samples) for name, clip in clips.items()}


def test_copies_are_found_and_other_takes_are_not(takes: dict[str, tuple[np.ndarray, np.ndarray]], tmp_path: Path):
    pixels, samples = takes["take 0"]
    own = print_of(pixels[:-11], samples[: -11 * RATE // FPS])
    found = dict(copies_of(pixels, samples, 11, tmp_path))
    for name, copy in found.items():
        likeness = compare(own, copy)
        assert likeness.is_copy, (name, likeness)
    assert compare(own, found["shifted"]).offset == pytest.approx(11 / STEP_FRAMES, abs=1)
    others = {name: print_of(*take) for name, take in takes.items()}
    for one, other in combinations(others, 2):
        assert not compare(others[one], others[other]).is_copy, (one, other)
    everything = [own, *found.values(), *(others[name] for name in ("take 1", "take 2", "other"))]
    assert groups(everything, [str(i) for i in range(len(everything))]).tolist() == [0, 0, 0, 0, 0, 1, 2, 3]


@pytest.mark.slow
def test_on_real_people(tmp_path: Path):
    if not TALK.is_dir():
        pytest.skip(f"{TALK} is not here")
    prints, takes = [], []
    for name in ("lp_d11", "lp_d20"):
        path = TALK / f"{name}.mp4"
        for start in (0.0, 3.4):
            end = start + 3.4
            sound = read_sound(path, RATE, start, end)
            assert sound is not None
            pixels = read_frames(path, fps=FPS, short_side_pixels=160, start_seconds=start, end_seconds=end).pixels
            own = print_of(pixels[:-11], sound.samples[: -11 * RATE // FPS])
            copies = [copy for _, copy in copies_of(pixels, sound.samples, 11, tmp_path)]
            prints += [own, *copies]
            takes += [(name, start)] * (1 + len(copies))
    found = groups(prints, [str(i) for i in range(len(prints))])
    assert found.tolist() == (np.arange(len(prints)) // 5).tolist()


def test_marks_of_one_sound_hardly_depend_on_where_it_begins():
    noise = np.random.default_rng(0).normal(size=4 * RATE).astype(np.float32)
    one, shifted = (set(marks(Sound(part, RATE)).tolist()) for part in (noise[:-3333], noise[3333:]))
    other = set(marks(Sound(np.random.default_rng(1).normal(size=4 * RATE).astype(np.float32), RATE)).tolist())
    assert len(one) == NUM_MARKS and len(one & shifted) > NUM_MARKS / 4 and len(one & other) < 3
    assert not len(marks(Sound(np.zeros(RATE, np.float32), RATE))) and not len(marks(None))


def drawn_prints(number: int, rng: np.random.Generator) -> list[Fingerprint]:
    """Random walks of blocks around a random picture."""
    looks = rng.uniform(60, 190, (number, 1, 64))
    walks = np.cumsum(rng.normal(0, 4, (number, 20, 64)), axis=1)
    pictures = np.clip(looks + walks, 0, 255).astype(np.uint8)
    sounds = np.sort(rng.integers(0, 2**32, (number, NUM_MARKS), np.uint32), axis=1)
    return [Fingerprint(*both) for both in zip(pictures, sounds, strict=True)]


def test_a_fingerprint_survives_its_bytes():
    rng = np.random.default_rng(0)
    for one in drawn_prints(2, rng):
        again = Fingerprint.from_bytes(one.to_bytes())
        assert (again.pictures == one.pictures).all() and (again.marks == one.marks).all()
    silent = Fingerprint.from_bytes(replace(drawn_prints(1, rng)[0], marks=np.zeros(0, np.uint32)).to_bytes())
    assert not len(silent.marks) and len(silent.pictures) == 20


def test_pairs_worth_a_look_grow_with_the_clips_not_with_their_square():
    rng = np.random.default_rng(2)
    counts = {}
    for number in (1000, 4000):
        prints = drawn_prints(number, rng)
        prints += [replace(each, marks=each.marks[:0]) for each in prints[:20]]  # only the pictures lead to these
        pairs = {tuple(pair) for pair in candidates(prints, np.arange(len(prints))).tolist()}
        assert {(i, number + i) for i in range(20)} <= pairs
        counts[number] = len(pairs)
    assert counts[4000] < 8 * counts[1000] and counts[4000] < 4 * 4000


def table(rows: list[tuple[str, str, str, int, bytes]]) -> pd.DataFrame:
    columns = ["source_id", "identity", "split", "width", "fingerprint"]
    return pd.DataFrame(rows, columns=columns).assign(height=100)


def test_the_held_out_clip_of_a_take_is_kept_and_the_trained_ones_give_way():
    one, other = (each.to_bytes() for each in drawn_prints(2, np.random.default_rng(3)))
    rows = [("a", "x", "train", 300, one), ("b", "x", "test", 100, one), ("c", "y", "train", 400, one)]
    found = numbered(table([*rows, ("d", "y", "train", 100, other), ("e", "z", "train", 200, other)]))
    assert found["copy_number"].tolist() == [2, 0, 1, 1, 0]
    assert found["held_out_copy"].tolist() == [1, 0, 1, 0, 0]


def test_the_step_writes_scores_and_names_identities(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    one, other = (each.to_bytes() for each in drawn_prints(2, np.random.default_rng(3)))
    people = {"a": ("ann", "train"), "b": ("bob", "test"), "c": ("cy", "train"), "d": ("dan", "train")}
    sources = [
        {"source_id": key, "path": f"{key}.mp4", "identity": who, "split": split, "width": 9, "height": 9}
        for key, (who, split) in people.items()
    ]
    write_table(sources, SOURCES, tmp_path / SOURCES_TABLE)
    spans = {"start_seconds": 0.0, "end_seconds": 2.0}
    clips = [{"clip_id": f"clip-{key}", "source_id": key, **spans} for key in people]
    write_table(clips, CLIPS, tmp_path / "clips")
    prints = {"a": one, "b": one, "c": other}
    strips = [{"clip_id": f"clip-{key}", "strip": b"", "fingerprint": mark} for key, mark in prints.items()]
    write_table(strips, STRIPS, tmp_path / "strips")
    duplicates(tmp_path, tmp_path / "clips", tmp_path / "strips", tmp_path / "scores", tmp_path / "report.csv")
    scores = read_table(tmp_path / "scores").pivot(index="clip_id", columns="scorer", values="value")
    assert scores["held_out_copy"].tolist()[:3] == [1, 0, 0] and np.isnan(scores["held_out_copy"].iloc[3])
    assert read_table(tmp_path / "scores")["status"].tolist() == ["ok"] * 6 + ["error"] * 2
    report = pd.read_csv(tmp_path / "report.csv")
    assert report["clip_id"].tolist() == ["clip-b", "clip-a"] and set(report["identity"]) == {"ann", "bob"}
    assert "ann and bob" in caplog.text
