"""The layouts of published sets, tried on small folders laid out like them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.test_sources import make_video

from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.split import Split
from omnihuman.data.manifest import read_table
from omnihuman.data.shots import split
from omnihuman.data.sources import collect
from omnihuman.errors import UserError


def run(layout: str, folder: Path, out: Path) -> pd.DataFrame:
    """The table of sources with, of each, the first and last second of its clips."""
    collect(
        Collect(source=str(folder), layout=layout, licence="own"), 17, out / "s", out / "t", out / "takedowns.jsonl"
    )
    split(Split(), out / "s", out / "clips.parquet")
    clips = read_table(out / "clips.parquet").groupby("source_id")
    spans = clips.agg(start=("start_seconds", "min"), end=("end_seconds", "max")).reset_index()
    table = read_table(out / "s" / "sources.parquet").merge(spans, on="source_id", how="left")
    return table.assign(name=[Path(path).name for path in table["path"]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def test_ravdess_names_say_actor_and_statement(folder: Path, tmp_path: Path) -> None:
    names = ["01-01-06-01-02-01-12", "02-01-06-01-02-01-12", "02-02-03-02-01-02-07", "01-01-01-01-01-01-12"]
    for shade, name in enumerate(names):
        (folder / f"Actor_{name[-2:]}").mkdir(exist_ok=True)
        make_video(folder / f"Actor_{name[-2:]}" / f"{name}.mp4", shade, with_sound=name.startswith("01"))
    table = run("ravdess", folder, tmp_path).set_index("name")
    assert set(table.index) == {f"{names[0]}.mp4", f"{names[2]}.mp4", f"{names[3]}.mp4"}  # once with sound, not without
    first = table.loc[f"{names[0]}.mp4"]
    assert first["identity"] == first["takedown_key"] == "RAVDESS actor 12" and first["language"] == "en"
    assert first["caption"] == 'a woman says "Dogs are sitting by the door", fearful'
    assert table.loc[f"{names[2]}.mp4", "caption"] == 'a man sings "Kids are talking by the door", very happy'
    assert table.groupby("identity")["split"].nunique().max() == 1
    make_video(folder / "Actor_12" / "01-01-06-01-03-01-12.mp4", 9)  # there is no third statement
    with pytest.raises(UserError, match=r"01-01-06-01-03-01-12.mp4: is not named as in RAVDESS"):
        run("ravdess", folder, tmp_path)


def clip(video: str, start: float, end: float, labels: object) -> dict:
    return {
        "ytb_id": video,
        "duration": {"start_sec": start, "end_sec": end},
        "bbox": {"top": 0.0, "bottom": 0.8815, "left": 0.1964, "right": 0.6922},
        "attributes": {"appearance": [0, 1], "action": [1, 0], "emotion": {"sep_flag": False, "labels": labels}},
        "version": "v0.1",
    }


def test_celebv_hq_takes_cut_clips_or_spans_of_raw_videos(folder: Path, tmp_path: Path) -> None:
    happy = [{"emotion": "neutral", "start_sec": 0, "end_sec": 1}, {"emotion": "happy", "start_sec": 1, "end_sec": 2}]
    clips = {
        "M2Ohb0FAaJU_1": clip("M2Ohb0FAaJU", 81.62, 86.17, "neutral"),
        "_0tf2n3rlJU_0": clip("_0tf2n3rlJU", 1.0, 2.5, happy),
        "_0tf2n3rlJU_1": clip("_0tf2n3rlJU", 2.5, 3.75, "sad"),
        "never_downloaded_0": clip("never_downloaded", 0.0, 1.0, "sad"),
    }
    info = folder / "celebvhq_info.json"
    info.write_text(json.dumps({"meta_info": {"appearance_mapping": [], "action_mapping": []}, "clips": clips}))
    (folder / "processed").mkdir()
    (folder / "raw").mkdir()
    make_video(folder / "processed" / "M2Ohb0FAaJU_1.mp4", num_frames=50)
    make_video(folder / "raw" / "_0tf2n3rlJU.mp4", 1, num_frames=100)
    table = run("celebv_hq", folder, tmp_path)
    assert list(table["identity"]) == ["CelebV-HQ M2Ohb0FAaJU", "CelebV-HQ _0tf2n3rlJU", "CelebV-HQ _0tf2n3rlJU"]
    assert list(table["caption"]) == ["a person, neutral", "a person, neutral, then happy", "a person, sad"]
    assert [tuple(row) for row in table[["start", "end"]].to_numpy()] == [(0.0, 2.0), (1.0, 2.5), (2.5, 3.75)]
    shutil.rmtree(folder / "raw")
    shutil.rmtree(folder / "processed")
    with pytest.raises(UserError, match=r"holds none of the clips of celebvhq_info.json"):
        run("celebv_hq", folder, tmp_path)
    clips["../../x"] = clip("x", 0.0, 1.0, "sad")
    info.write_text(json.dumps({"clips": clips}))
    with pytest.raises(UserError, match=r"celebvhq_info.json: is not the JSON of CelebV-HQ \(.*no name of a file"):
        run("celebv_hq", folder, tmp_path)
    info.unlink()
    with pytest.raises(UserError, match=r"celebvhq_info.json is missing: put"):
        run("celebv_hq", folder, tmp_path)


def test_hdtf_takes_cut_clips_or_spans_of_whole_videos(folder: Path, tmp_path: Path) -> None:
    (folder / "RD_annotion_time.txt").write_text("Radio1.mp4 00:01-00:02\nRadio2.mp4 00:00-00:01\n")
    (folder / "WRA_annotion_time.txt").write_text("PaulRyan0.mp4 00:00-00:01 00:02-00:03 \nPaulRyan1.mp4 00:05-00:50\n")
    (folder / "RD_crop_wh.txt").write_text("Radio1_0.mp4 10 20 30 40\n")
    make_video(folder / "Radio1.mp4", num_frames=75)
    make_video(folder / "Radio2_0.mp4", 1, num_frames=25)
    make_video(folder / "PaulRyan0.mp4", 2, num_frames=100)
    table = run("hdtf", folder, tmp_path)
    assert list(table["name"]) == ["Radio1.mp4", "Radio2_0.mp4", "PaulRyan0.mp4", "PaulRyan0.mp4"]
    assert list(table["identity"]) == ["HDTF radio", "HDTF radio", "HDTF PaulRyan", "HDTF PaulRyan"]
    assert list(table["takedown_key"])[:3] == ["HDTF Radio1", "HDTF Radio2", "HDTF PaulRyan0"]
    assert [tuple(row) for row in table[["start", "end"]].to_numpy()] == [
        (1.0, 2.0),
        (0.0, 1.0),
        (0.0, 1.0),
        (2.0, 3.0),
    ]
    (folder / "WDA_annotion_time.txt").write_text("A.mp4 00:10-00:05\n")
    with pytest.raises(UserError, match=r"WDA_annotion_time.txt, row 1: '00:10-00:05' is no time span"):
        run("hdtf", folder, tmp_path)
    for path in folder.glob("*.txt"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no RD_annotion_time.txt"):
        run("hdtf", folder, tmp_path)
