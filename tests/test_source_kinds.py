"""Step collect on lists, tables, S3 prefixes and spans, and what it says about rights."""

import hashlib
import json
import os
from pathlib import Path

import boto3
import pandas as pd
import pytest
from tests.s3_server import BUCKET, empty_bucket
from tests.test_config import CONF
from tests.test_sources import make_video

from omnihuman.config.compose import compose
from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.split import Split
from omnihuman.data.manifest import read_table
from omnihuman.data.shots import split
from omnihuman.data.sources import collect
from omnihuman.data.takedowns import Takedown, key_sha256, write_takedown
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256
from omnihuman.storage.s3_cache import S3Cache
from omnihuman.storage.work import omnihuman_home

RIGHTS = {"licence": "own", "consent_basis": "contract", "rights_holder": "us"}


def run(source: Path | str, out: Path, **settings: str) -> pd.DataFrame:
    collect(Collect(source=str(source), **settings), 17, out / "sources", out / "truth", out / "takedowns.jsonl")
    return read_table(out / "sources" / "sources.parquet")


def csv(file: Path, **columns: list) -> Path:
    pd.DataFrame(columns).to_csv(file, index=False)
    return file


def test_a_list_takes_the_files_that_it_names_and_says_which_are_missing(tmp_path: Path) -> None:
    video = make_video(tmp_path / "one.mp4")
    make_video(tmp_path / "not listed.mp4", 1)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{video}\n\n  absent.mp4 \n")
    table = run(listed, tmp_path)
    assert list(table["path"]) == [str(video), str(tmp_path / "absent.mp4")]
    assert list(table["status"]) == ["ok", "error"]
    assert "No such file" in table["error"][1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_states_rights_people_and_spans(suffix: str, tmp_path: Path) -> None:
    video = make_video(tmp_path / "one.mp4", num_frames=100)
    (tmp_path / "one.json").write_text(json.dumps({"identity": "nobody", "language": "en"}))
    other = make_video(tmp_path / "two.mp4", 1)
    columns = pd.DataFrame(
        {
            "path": ["one.mp4", "one.mp4", str(other)],
            "identity": ["007", "Bob", ""],
            "licence": ["CC0", "own", "CC-BY"],
            "takedown_key": ["k1", "", ""],
            "start_seconds": [0.5, 1.0, None],
            "end_seconds": [1.5, 3.5, None],
        }
    )
    path = tmp_path / f"clips{suffix}"
    columns.to_csv(path, index=False) if suffix == ".csv" else columns.to_parquet(path)
    table = run(path, tmp_path, **RIGHTS)
    assert list(table["path"]) == [str(video), str(video), str(other)]
    assert list(table["identity"]) == ["007", "Bob", "two"]
    assert list(table["licence"]) == ["CC0", "own", "CC-BY"]
    assert list(table["takedown_key"]) == ["k1", "Bob", "two"]
    assert list(table["language"]) == ["en", "en", ""]
    assert table["source_id"].nunique() == 3
    split(Split(), tmp_path / "sources", tmp_path / "clips.parquet")
    clips = read_table(tmp_path / "clips.parquet")
    whole = clips.groupby("source_id").agg(start=("start_seconds", "min"), end=("end_seconds", "max"))
    assert [tuple(whole.loc[name]) for name in table["source_id"]] == [(0.5, 1.5), (1.0, 3.5), (0.0, 1.0)]
    assert clips["clip_id"].is_unique


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"path": ["a.mp4", ""]}, r"clips.csv, row 2: path is empty; name a video"),
        ({"path": ["a.mp4"], "license": ["CC0"]}, r"clips.csv: unknown column 'license'; rename"),
        ({"paths": ["a.mp4"]}, r"unknown column 'paths'"),
        ({"caption": ["a.mp4"]}, r"has no column path; add it"),
        ({"path": ["a.mp4"], "start_seconds": ["soon"]}, r"row 1: start_seconds is 'soon'; write seconds as a number"),
        ({"path": ["a.mp4"], "start_seconds": [2], "end_seconds": [1]}, r"row 1: .* set 0 <= start < end"),
        ({"path": ["a.mp4", "a.mp4"], "licence": ["CC0", None], "start_seconds": [0, 0.1]},
         r"row 2 \(.*a.mp4\): licence is not stated; fill it in there, or set collect.licence"),
    ],
)  # fmt: skip
def test_a_wrong_cell_is_named_by_file_row_key_and_remedy(columns: dict, said: str, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=said):
        run(csv(tmp_path / "clips.csv", **columns), tmp_path, **{**RIGHTS, "licence": ""})


def test_a_span_behind_the_end_is_a_row_that_says_so(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    table = run(csv(tmp_path / "c.csv", path=["a.mp4", "a.mp4"], start_seconds=[0, 9]), tmp_path, **RIGHTS)
    assert list(table["status"]) == ["ok", "error"]
    assert "start_seconds 9 is not in it" in table["error"][1]


def test_composition_takes_lists_tables_and_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stated = [f"collect.{key}={value}" for key, value in RIGHTS.items()]
    for name in ("list.txt", "clips.csv"):
        (tmp_path / name).touch()
        params = compose("tiny", [f"collect.source={name}", *stated], CONF).collect
        assert params.source == params.depends_on == str(tmp_path / name)
    prefix = compose("tiny", ["collect.source=s3://bucket/a/b", *stated], CONF).collect
    assert prefix.source == prefix.depends_on == "s3://bucket/a/b"
    with pytest.raises(UserError, match=r"collect.rights_holder=..."):
        compose("tiny", ["collect.source=list.txt", *stated[:2]], CONF)
    unstated = compose("tiny", ["collect.source=clips.csv", "collect.licence=unknown"], CONF).collect
    assert (unstated.licence, unstated.consent_basis) == ("unknown", "")
    with pytest.raises(UserError, match=r"collect.layout is hdtf: a list"):
        compose("tiny", ["collect.source=list.txt", "collect.layout=hdtf", *stated], CONF)
    with pytest.raises(UserError, match=r"collect.layout: unknown 'hdtv'"):
        compose("tiny", ["collect.layout=hdtv"], CONF)


def test_a_takedown_keeps_a_person_out_under_any_name(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    video = make_video(videos / "a.mp4")
    make_video(videos / "b.mp4", 1)
    (videos / "a.json").write_text(json.dumps({"takedown_key": "k"}))
    write_takedown(tmp_path / "takedowns.jsonl", Takedown(key_sha256("k"), (file_sha256(video),)))
    assert list(run(videos, tmp_path)["identity"]) == ["b"]
    (videos / "a.json").unlink()
    video.rename(videos / "came back.mp4")
    assert list(run(videos, tmp_path)["identity"]) == ["b"]
    (videos / "b.mp4").unlink()
    with pytest.raises(UserError, match=r"taken down"):
        run(videos, tmp_path)
    (tmp_path / "takedowns.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"line 1: is no record of a takedown; restore"):
        run(videos, tmp_path)


@pytest.fixture
def bucket(s3_server: None) -> str:
    empty_bucket()
    return BUCKET


def put(bucket: str, key: str, path: Path) -> None:
    boto3.client("s3").upload_file(str(path), bucket, key)


def cached() -> dict[str, int]:
    """When each content was fetched."""
    root = omnihuman_home() / "s3" / "objects"
    return {path.name: path.stat().st_mtime_ns for path in root.iterdir()}


@pytest.mark.slow
def test_a_prefix_gives_what_the_folder_gives_and_is_fetched_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    make_video(folder / "a.mp4")
    make_video(folder / "deep" / "b.mkv", 1)
    (folder / "a.json").write_text(json.dumps({"identity": "Ada", "licence": "CC0"}))
    (folder / "a.txt").write_text("a person")
    for path in folder.rglob("*.*"):
        put(bucket, f"corpus/v/{path.relative_to(folder)}", path)
    put(bucket, "corpus/vx/c.mp4", make_video(tmp_path / "c.mp4", 2))
    here, there = run(folder, tmp_path / "1", **RIGHTS), run(f"s3://{bucket}/corpus/v", tmp_path / "2", **RIGHTS)
    assert here.drop(columns="path").equals(there.drop(columns="path"))
    before = cached()
    assert run(f"s3://{bucket}/corpus/v/", tmp_path / "2", **RIGHTS).equals(there) and cached() == before
    put(bucket, "corpus/v/deep/b.mkv", make_video(tmp_path / "b2.mkv", 5))
    boto3.client("s3").delete_object(Bucket=bucket, Key="corpus/v/a.txt")
    table = run(f"s3://{bucket}/corpus/v", tmp_path / "2", **RIGHTS)
    assert list(table["sha256"]) == [here["sha256"][0], file_sha256(tmp_path / "b2.mkv")]
    assert list(table["caption"]) == ["", ""]
    with pytest.raises(UserError, match=r"s3://.*/nothing holds no file"):
        run(f"s3://{bucket}/nothing", tmp_path / "3")
    with pytest.raises(UserError, match=r"NoSuchBucket"):
        run("s3://no-such-bucket/a", tmp_path / "3")


@pytest.mark.slow
def test_rows_may_lie_on_s3_and_a_killed_fetch_goes_on(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    content = os.urandom(6_000_000)
    (tmp_path / "large.mp4").write_bytes(content)
    put(bucket, "large.mp4", tmp_path / "large.mp4")
    cache = S3Cache((".json",))
    assert cache.fetch_video(f"s3://{bucket}/large.mp4")
    (partial,) = [tmp_path / "home/s3/partial" / path for path in partial_names(tmp_path, bucket)]
    for path in (tmp_path / "home/s3/objects").iterdir():
        path.unlink()
    partial.write_bytes(content[:5_000_000])
    asked = []
    client = cache._client()
    client.meta.events.register("before-send.s3.GetObject", lambda request, **_: asked.append(request.headers["Range"]))
    fetched = cache.fetch_video(f"s3://{bucket}/large.mp4")
    assert fetched and fetched.read_bytes() == content and asked == [b"bytes=5000000-"]
    put(bucket, "v/a.mp4", make_video(tmp_path / "a.mp4"))
    (tmp_path / "a.json").write_text(json.dumps({"identity": "Ada"}))
    put(bucket, "v/a.json", tmp_path / "a.json")
    listed = csv(tmp_path / "clips.csv", path=[f"s3://{bucket}/v/a.mp4"])
    table = run(listed, tmp_path, **RIGHTS)
    assert list(table["identity"]) == ["Ada"] and list(table["status"]) == ["ok"]
    with pytest.raises(UserError, match=r"s3://.*absent.mp4 does not exist; correct the row"):
        run(csv(tmp_path / "clips.csv", path=[f"s3://{bucket}/absent.mp4"]), tmp_path, **RIGHTS)


def partial_names(tmp_path: Path, bucket: str) -> list[str]:
    """The name under which the one fetched file would lie half fetched."""
    (index,) = (tmp_path / "home/s3/index").iterdir()
    known = json.loads(index.read_text())
    version = hashlib.sha256(f"{known['etag']} {known['size']}".encode()).hexdigest()[:16]
    return [f"{index.stem}-{version}"]


@pytest.mark.slow
def test_a_person_who_was_taken_down_is_not_fetched_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    sha256 = file_sha256(make_video(tmp_path / "a.mp4"))
    put(bucket, "v/a.mp4", tmp_path / "a.mp4")
    put(bucket, "v/b.mp4", make_video(tmp_path / "b.mp4", 1))
    assert len(run(f"s3://{bucket}/v", tmp_path)) == 2
    write_takedown(tmp_path / "takedowns.jsonl", Takedown(key_sha256("a")))
    assert list(run(f"s3://{bucket}/v", tmp_path)["identity"]) == ["b"]  # by its identity, its hash is not known
    content = {file_sha256(path) for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert sha256 not in content and file_sha256(tmp_path / "b.mp4") in content
    write_takedown(tmp_path / "takedowns.jsonl", Takedown(key_sha256("a"), (sha256,)))
    asked = (
        S3Cache(()).fetch_video(f"s3://{bucket}/v/b.mp4"),
        S3Cache((), {sha256}).fetch_video(f"s3://{bucket}/v/a.mp4"),
    )
    assert asked[0] and asked[1] is None
    assert list(run(f"s3://{bucket}/v", tmp_path)["identity"]) == ["b"]
