"""The rendered sample that closes a run: which clips give its picture and its sound."""

from pathlib import Path

import pyarrow as pa
import pytest

from omnihuman.data.manifest import CLIPS, DECISIONS, SOURCES, SOURCES_TABLE, write_table
from omnihuman.pipeline import sample


def row(schema: pa.Schema, **known: object) -> dict:
    """A row in which everything that is not said is empty."""
    empty = {pa.string(): "", pa.bool_(): False, pa.list_(pa.string()): []}
    return {field.name: known.get(field.name, empty.get(field.type, 0)) for field in schema}


def write_project(folder: Path, eligible: str) -> None:
    """Three held-out sources with sound, each with one clip that begins late, and one source to train on."""
    names = ["a", "b", "c", "d"]
    (folder / "data/sources").mkdir(parents=True)
    sources = [
        row(SOURCES, source_id=n, path=str(folder / f"{n}.mp4"), status="ok", split="train" if n == "d" else "test",
            audio_codec="aac")
        for n in names
    ]  # fmt: skip
    write_table(sources, SOURCES, folder / "data/sources" / SOURCES_TABLE)
    clips = [
        row(CLIPS, clip_id=f"{n}-0", source_id=n, status="ok", start_seconds=8.0 + i, end_seconds=10.0 + i)
        for i, n in enumerate(names)
    ]
    write_table(clips, CLIPS, folder / "data/clips.parquet")
    decisions = [row(DECISIONS, clip_id=f"{n}-0", modality="audio", eligible=n in eligible) for n in names]
    write_table(decisions, DECISIONS, folder / "data/decisions.parquet")


@pytest.mark.parametrize(
    ("eligible", "starts"), [("abcd", (8.0, 10.0)), ("bc", (9.0, 10.0)), ("d", (8.0, 10.0)), ("", (8.0, 10.0))]
)
def test_picture_and_sound_come_from_where_held_out_clips_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eligible: str, starts: tuple[float, float]
) -> None:
    """A real file showed nothing in its first 8 s, and the demo had looked there for a picture."""
    write_project(tmp_path, eligible)
    monkeypatch.chdir(tmp_path)
    pair = sample._held_out_pair()
    assert pair is not None and tuple(clip.start_seconds for clip in pair) == starts
