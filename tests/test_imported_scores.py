"""Scores that were measured elsewhere take the place of our scorers, row by row named as what they are."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from tests.test_config import CONF
from tests.test_sources import make_video

from omnihuman.config.compose import compose
from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.score import Score
from omnihuman.config.schema.split import Split
from omnihuman.data.manifest import read_table
from omnihuman.data.scorers.registry import SCORERS
from omnihuman.data.scoring import score
from omnihuman.data.shots import split
from omnihuman.data.sources import collect
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256

NAMES = {name for scorer in SCORERS for name in scorer.names}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two clips of one video each."""
    (tmp_path / "videos").mkdir()
    for shade in range(2):
        make_video(tmp_path / "videos" / f"{shade}.mp4", shade, with_sound=False)
    collect(Collect(source=str(tmp_path / "videos")), 17, tmp_path / "s", tmp_path / "t", tmp_path / "none")
    split(Split(), tmp_path / "s", tmp_path / "clips.parquet")
    return tmp_path


def run(data: Path, table: pd.DataFrame | None, name: str = "scores.csv") -> pd.DataFrame:
    config = Score()
    if table is not None:
        path = data / name
        table.to_csv(path, index=False) if name.endswith(".csv") else table.to_parquet(path)
        config = Score(
            imported=str(path), imported_source="Tool", imported_version="2", imported_sha256=file_sha256(path)
        )
    score(config, data / "s", data / "clips.parquet", data / "scores.parquet", data / "strips.parquet")
    return read_table(data / "scores.parquet")


def test_a_wide_table_replaces_scorers_and_adds_new_ones(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(data / "home"))
    own = run(data, None)
    family = next(scorer for scorer in SCORERS if len(scorer.names) == 1)
    (name,) = family.names
    paths = ["videos/0.mp4", str(data / "videos" / "1.mp4"), "videos/elsewhere.mp4"]
    table = run(data, pd.DataFrame({"path": paths, name: [0.25, None, 1.0], "dover": [7.0, 8.0, 9.0]}))
    assert set(table["scorer"]) == NAMES | {"dover"} and not table.duplicated(["clip_id", "scorer"]).any()
    rows = table[table["scorer"].isin([name, "dover"])]
    assert set(rows["implementation"]) == {"imported"} and set(rows["version"]) == {"Tool 2"}
    ours = rows[rows["scorer"] == name]
    there = ours["status"] == "ok"
    assert set(ours[there]["value"]) == {0.25} and set(ours[~there]["status"]) == {"na"} and 0 < there.sum() < len(ours)
    assert set(ours[~there]["error"]) == {"Tool 2 has no value of this clip"} and ours[~there]["value"].isna().all()
    assert set(rows[rows["scorer"] == "dover"]["value"]) == {7.0, 8.0}
    others = ~table["scorer"].isin([name, "dover"])
    assert table[others].reset_index(drop=True).equals(own[own["scorer"] != name].reset_index(drop=True))


def test_what_was_imported_is_not_measured(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(data / "home"))
    clips = read_table(data / "clips.parquet")["clip_id"]
    long = pd.DataFrame([(clip, name, 1.0) for clip in clips for name in NAMES], columns=["clip_id", "scorer", "value"])
    table = run(data, long, "scores.parquet")
    assert set(table["implementation"]) == {"imported"} and len(table) == len(long)
    kept = [read_table(path) for path in (data / "home").rglob("chunk-*.parquet")]
    assert sum(map(len, kept)) == 0, "nothing was measured"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"clip": ["a"], "x": [1.0]}, "none of the columns clip_id, sha256, path; add one"),
        ({"clip_id": ["a"]}, "has no scores; add columns"),
        ({"clip_id": ["a"], "x": [1.0]}, "no clip_id in it is that of a clip here"),
        ({"path": ["videos/0.mp4"], "x": ["high"]}, "x of .*0.mp4 is 'high'; write a number"),
        ({"path": ["videos/0.mp4"] * 2, "x": [1.0, 2.0]}, "x of .*0.mp4 is there twice; remove one"),
    ],
)
def test_a_malformed_table_is_the_users_error(table: dict, said: str, data: Path) -> None:
    with pytest.raises(UserError, match=said):
        run(data, pd.DataFrame(table))


def test_composition_notes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores.csv").write_text("clip_id,x\na,1\n")
    named = ["score.imported=scores.csv", "score.imported_source=Tool", "score.imported_version=2"]
    config = compose("tiny", named, CONF).score
    assert config.imported == str(tmp_path / "scores.csv")
    assert config.imported_sha256 == file_sha256(tmp_path / "scores.csv")
    with pytest.raises(UserError, match=r"score.imported_version is empty: say who"):
        compose("tiny", named[:2], CONF)
    with pytest.raises(UserError, match=r"no such .parquet or .csv"):
        compose("tiny", ["score.imported=absent.csv", *named[1:]], CONF)
    changed = dataclasses.replace(config, imported_sha256="0")
    with pytest.raises(UserError, match=r"changed since params.yaml was composed"):
        from omnihuman.data.imported_scores import read_imported

        read_imported(changed, pd.DataFrame({"clip_id": ["a"]}))
