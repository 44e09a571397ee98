"""Step split: hard cuts are found, people who wave are not cut, spans are exact."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.split import Split
from omnihuman.data.manifest import read_table
from omnihuman.data.shots import split
from omnihuman.data.sources import collect
from omnihuman.media.shots import Shot, cut_shot, find_shots
from omnihuman.media.write import write_video

MEDIA = Path(__file__).parents[2] / "shared" / "media"


def wave(seed: int, num_frames: int, fps: float = 25.0) -> list[np.ndarray]:
    """A drawn person who waves an arm in front of a patterned wall."""
    rng = np.random.default_rng(seed)
    wall, skin, coat = (tuple(int(value) for value in rng.integers(30, 230, 3)) for _ in range(3))
    frames = []
    for index in range(num_frames):
        picture = np.full((192, 160, 3), wall, np.uint8)
        picture[::16] = np.array(wall) // 2
        sway = int(6 * np.sin(index / fps * 3))
        angle = 0.9 * np.sin(2 * np.pi * 1.5 * index / fps)
        hand = (120 + int(40 * np.sin(angle)), 110 - int(45 * np.cos(angle)))
        cv2.ellipse(picture, (80 + sway, 190), (45, 80), 0, 0, 360, coat, -1)
        cv2.circle(picture, (80 + sway, 75), 32, skin, -1)
        cv2.line(picture, (110 + sway, 140), hand, coat, 16)
        cv2.circle(picture, hand, 11, skin, -1)
        frames.append(picture)
    return frames


def run(folder: Path, out: Path, config: Split) -> pd.DataFrame:
    collect(Collect(source=str(folder)), 17, out / "sources", out / "truth")
    split(config, out / "sources", out / "clips.parquet")
    return read_table(out / "clips.parquet")


@pytest.mark.parametrize("fps", [23.976, 25.0, 59.94])
def test_hard_cuts_are_found_at_their_time(fps: float, tmp_path: Path) -> None:
    lengths = [round(seconds * fps) for seconds in (1.6, 1.2, 2.0)]
    frames = [frame for seed, length in enumerate(lengths) for frame in wave(seed, length, fps)]
    write_video(tmp_path / "cuts.mp4", frames, fps)
    shots = find_shots(Split(), tmp_path / "cuts.mp4")
    edges = [shot.start_seconds for shot in shots] + [shots[-1].end_seconds]
    assert edges == pytest.approx(np.cumsum([0, *lengths]) / fps, abs=2e-3)


def test_people_who_wave_are_not_cut(tmp_path: Path) -> None:
    for seed in range(6):
        write_video(tmp_path / "wave.mp4", wave(seed, 60), 25.0)
        assert len(find_shots(Split(), tmp_path / "wave.mp4")) == 1


def test_long_shots_are_cut_into_equal_parts() -> None:
    config = Split(max_clip_seconds=6.0)
    assert cut_shot(config, Shot(1.0, 7.0)) == [Shot(1.0, 7.0)]
    parts = cut_shot(config, Shot(1.0, 14.0))
    assert [part.end_seconds - part.start_seconds for part in parts] == pytest.approx([13 / 3] * 3)
    assert parts[-1].end_seconds == 14.0


def test_every_source_and_every_short_shot_has_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "a.mp4", [*wave(1, 50), *wave(2, 10), *wave(3, 50)], 25.0)
    (folder / "b.mp4").touch()
    write_video(folder / "c.mp4", wave(4, 1), 25.0)
    clips = run(folder, tmp_path, Split())
    assert list(clips["status"]) == ["ok", "error", "ok", "error", "error"]
    assert list(clips["index"]) == [0, 1, 2, 0, 0]
    assert "shorter than 0.8 s" in clips["error"][1]
    assert clips["error"][3] == "the file is empty"
    assert clips["clip_id"].is_unique
    content = (tmp_path / "clips.parquet").read_bytes()
    split(Split(), tmp_path / "sources", tmp_path / "clips.parquet")
    assert (tmp_path / "clips.parquet").read_bytes() == content


@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media is absent")
def test_real_talking_heads_are_cut_where_the_picture_changes() -> None:
    assert len(find_shots(Split(), MEDIA / "talk" / "lp_d12.mp4")) == 1
    shots = find_shots(Split(), MEDIA / "talk" / "moore_1.mp4")
    assert [shot.start_seconds for shot in shots] == pytest.approx([0.0, 10.76])  # an advertisement ends it
