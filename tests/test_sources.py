"""Step collect on folders as users have them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from omnihuman.batch import Sound
from omnihuman.config.schema.collect import Collect
from omnihuman.data.manifest import read_table, source_path
from omnihuman.data.sources import collect
from omnihuman.errors import UserError
from omnihuman.media.write import write_video

MEDIA = Path(__file__).parents[2] / "shared" / "media"
ODD_NAMES = ("two words.mp4", 'it\'s "quoted".mp4', "new\nline.mp4", "smile 😀.mp4", "Größe-人.MP4", "a;b $(c).mkv")


def make_video(path: Path, shade: int = 0, num_frames: int = 25, *, with_sound: bool = True) -> Path:
    frames = [np.full((64, 48, 3), (shade * 7 + index) % 256, np.uint8) for index in range(num_frames)]
    tone = np.sin(np.arange(num_frames * 640) * 0.1).astype(np.float32) * 0.3
    write_video(path, frames, 25.0, Sound(tone, 16000) if with_sound else None)
    return path


def run(folder: Path, out: Path, config: Collect | None = None, seed: int = 17) -> pd.DataFrame:
    collect(config or Collect(source=str(folder), licence="own"), seed, out / "sources", out / "truth")
    return read_table(out / "sources" / "sources.parquet").set_index("path", drop=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    return tmp_path / "videos"


def test_bad_files_become_rows_and_the_run_goes_on(folder: Path, tmp_path: Path) -> None:
    whole = make_video(folder / "whole.mp4", num_frames=100)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 100)
    (folder / "noise.mkv").write_bytes(np.random.default_rng(0).bytes(50_000))
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:4,\nfile://{whole}\n#EXT-X-ENDLIST\n")
    content = whole.read_bytes()
    (folder / "truncated.mp4").write_bytes(content[: len(content) // 2])
    long = make_video(tmp_path / "long.mkv", num_frames=200).read_bytes()
    (folder / "truncated.mkv").write_bytes(long[: len(long) // 2])
    make_video(folder / "big.mp4", shade=1, num_frames=25 * 12)
    (folder / "outside.mp4").symlink_to(make_video(tmp_path / "outside.mp4", shade=2))
    (folder / "dangling.mp4").symlink_to(tmp_path / "absent.mp4")
    (folder / ".hidden.mp4").touch()
    config = Collect(source=str(folder), max_duration_seconds=10.0)
    table = run(folder, tmp_path, config)
    status = {Path(path).name: row["status"] for path, row in table.iterrows()}
    assert status.pop("whole.mp4") == "ok"
    assert len(status) == 9
    assert set(status.values()) == {"error"}
    assert all(error and "\n" not in error for error in table["error"] if error != "")
    assert all(table.loc[table["status"] == "error", "error"].str.len() > 10)
    assert "longer than" in table.loc[str(folder / "big.mp4"), "error"]
    assert "leaves the folder" in table.loc[str(folder / "outside.mp4"), "error"]


def test_unusual_but_whole_files_are_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    make_video(folder / "deep" / "er" / "one_frame.mp4", 1, num_frames=1)
    make_video(folder / "silent.mov", 2, with_sound=False)
    for index, name in enumerate(ODD_NAMES):
        source = make_video(tmp_path / f"plain{Path(name).suffix.lower()}", 3 + index)
        shutil.copy(source, folder / name)
    table = run(folder, tmp_path)
    assert list(table["error"]) == [""] * 8
    assert {Path(path).name for path in table.index} == {"one_frame.mp4", "silent.mov", *ODD_NAMES}
    assert table.loc[str(folder / "silent.mov"), "audio_codec"] == ""
    assert table.loc[str(folder / "deep" / "er" / "one_frame.mp4"), "num_frames"] == 1
    assert table.loc[str(folder / ODD_NAMES[0]), "audio_sample_rate"] == 16000
    assert (tmp_path / "truth" / "README").is_file()


def test_a_file_over_the_size_limit_is_not_read(folder: Path, tmp_path: Path) -> None:
    make_video(folder / "small.mp4", 1, num_frames=1, with_sound=False)
    make_video(folder / "large.mp4", 2, num_frames=100)
    limit = (folder / "small.mp4").stat().st_size
    table = run(folder, tmp_path, Collect(source=str(folder), max_file_bytes=limit))
    assert list(table["status"]) == ["error", "ok"]
    assert table["sha256"].iloc[0] == ""


def test_sidecars_fill_the_row(folder: Path, tmp_path: Path) -> None:
    for shade, name in enumerate(("plain", "full", "typo", "bad_pose")):
        make_video(folder / f"{name}.mp4", shade)
    (folder / "full.json").write_text(json.dumps({"identity": "Ada", "licence": "CC0", "language": "en"}))
    (folder / "full.txt").write_text("a person\n waves ")
    points, seconds = np.zeros((5, 17, 3), np.float32), np.arange(5) / 25
    np.savez(folder / "full.keypoints.npz", points=points, seconds=seconds)
    (folder / "typo.json").write_text(json.dumps({"license": "CC0"}))
    np.savez(folder / "bad_pose.keypoints.npz", points=points[:, :3], seconds=seconds)
    table = run(folder, tmp_path)
    full, plain = table.loc[str(folder / "full.mp4")], table.loc[str(folder / "plain.mp4")]
    assert (full["identity"], full["licence"], full["language"], full["caption"]) == (
        "Ada",
        "CC0",
        "en",
        "a person waves",
    )
    assert source_path(tmp_path / "sources", full["keypoints_path"]) == folder / "full.keypoints.npz"
    assert (plain["identity"], plain["licence"], plain["keypoints_path"]) == ("plain", "own", "")
    typo, bad_pose = table.loc[str(folder / "typo.mp4")], table.loc[str(folder / "bad_pose.mp4")]
    assert typo["status"] == "error"
    assert "'license'" in typo["error"]
    assert (bad_pose["status"], bad_pose["keypoints_path"]) == ("ok", "")
    assert "expected [F, 17, 3]" in bad_pose["error"]


def test_equal_files_are_one_row(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_video(folder / "b.mp4")
    shutil.copy(folder / "b.mp4", folder / "a.mp4")
    assert list(run(folder, tmp_path).index) == [str(folder / "a.mp4")]
    assert "b.mp4 has the same content as" in caplog.text


def test_the_split_holds_out_identities_and_is_reproducible(folder: Path, tmp_path: Path) -> None:
    for index in range(6):
        make_video(folder / f"{index}.mp4", index, num_frames=5, with_sound=False)
        (folder / f"{index}.json").write_text(json.dumps({"identity": f"person {index // 2}"}))
    first = run(folder, tmp_path)
    assert (first.groupby("identity")["split"].nunique() == 1).all()
    assert first.loc[first["split"] == "test", "identity"].nunique() == 1
    content = (tmp_path / "sources" / "sources.parquet").read_bytes()
    run(folder, tmp_path)
    assert (tmp_path / "sources" / "sources.parquet").read_bytes() == content
    held_out = {run(folder, tmp_path, seed=seed).query("split == 'test'")["identity"].iloc[0] for seed in range(4)}
    assert len(held_out) > 1


@pytest.mark.parametrize("case", ["missing", "file", "relative", "no videos", "all bad"])
def test_an_unusable_folder_is_the_users_error(case: str, folder: Path, tmp_path: Path) -> None:
    source = {"missing": folder / "absent", "file": folder / "file", "relative": Path("videos")}.get(case, folder)
    (folder / "file").touch()
    if case == "all bad":
        (folder / "empty.mp4").touch()
    with pytest.raises(UserError, match="videos"):
        run(source, tmp_path)
    assert not (tmp_path / "sources").exists()


@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media is absent")
def test_real_clips_are_all_usable(tmp_path: Path) -> None:
    table = run(MEDIA / "talk", tmp_path)
    assert list(table["status"]) == ["ok"] * 9
    assert set(table["video_codec"]) == {"h264", "hevc"}
