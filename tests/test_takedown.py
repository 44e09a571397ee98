"""A person is removed from everything that a real chain leaves: project, DVC cache and remote, home, runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pandas as pd
import pytest
from tests.s3_server import BUCKET
from tests.s3_server import settings as settings_of_s3
from tests.small_project import clone_project, environment, wait_until

from omnihuman.data.manifest import read_table
from omnihuman.data.takedowns import Takedown, TakenDown, key_sha256, write_takedown
from omnihuman.data.trained_networks import note_network
from omnihuman.encoders.small_syncnet import SmallSyncNet, TrainedOn, save_small_syncnet
from omnihuman.storage.files import file_sha256

pytestmark = [pytest.mark.slow, pytest.mark.long]


def run(clone: Path, *command: str, code: int = 0) -> str:
    done = subprocess.run(command, cwd=clone, env=environment(clone, "takedown"), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr[-3000:]
    return done.stdout + done.stderr


def dvc(clone: Path, *arguments: str) -> str:
    return run(clone, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, with_tiny_data: Callable[[Path], Path], s3_address: str
) -> Iterator[Path]:
    """A clone with a trained, registered and pushed model of the profile `tiny`; its shards lie on S3."""
    with pytest.MonkeyPatch.context() as environ:
        for name, value in settings_of_s3(s3_address).items():
            environ.setenv(name, value)
        yield train(tmp_path_factory, with_tiny_data)


def train(tmp_path_factory: pytest.TempPathFactory, with_tiny_data: Callable[[Path], Path]) -> Path:
    clone = clone_project(tmp_path_factory.mktemp("takedown") / "omnihuman")
    with_tiny_data(clone)
    run(clone, "omnihuman", "config", "compose", "--profile", "tiny", f"encode.shards_at=s3://{BUCKET}/shards")
    dvc(clone, "repro")
    run(clone, "omnihuman", "registry", "register", "--allow-dirty")
    dvc(clone, "remote", "add", "--default", "store", str(clone.parent / "remote"))
    dvc(clone, "remote", "add", "copy", f"s3://{BUCKET}/dvc")
    dvc(clone, "push", "--run-cache")
    dvc(clone, "push", "--remote", "copy")
    clips = read_table(clone / "data/clips.parquet")
    (clone / "renders").mkdir(exist_ok=True)
    shutil.copy(next((clone / "reports/evaluation").rglob("*.png")), clone / "renders/demo.png")
    assert len(clips)
    return clone


def files(clone: Path) -> Iterator[Path]:
    """Of the clone, its home and its remotes; those on S3 as copies."""
    bucket = clone.parent / "bucket"
    shutil.rmtree(bucket, ignore_errors=True)
    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for one in page.get("Contents", []):
            (bucket / one["Key"]).parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, one["Key"], str(bucket / one["Key"]))
    for folder, names, _ in os.walk(clone.parent):
        names[:] = [name for name in names if name not in (".git", ".venv")]
        yield from (path for path in Path(folder).iterdir() if path.is_file() and not path.is_symlink())


def readable(path: Path) -> bytes:
    """Content with what compressed tables say."""
    content = path.read_bytes()
    return content + pd.read_parquet(path).to_csv().encode() if content[:4] == b"PAR1" else content


def traces(clone: Path, person: pd.DataFrame, clip_ids: list[str], videos: list[bytes]) -> list[Path]:
    """Files that hold a video of the person as a whole or a middle part of one, or name one of their clips."""
    ids = re.compile("|".join([*clip_ids, *person["source_id"]]).encode())
    hashes, parts = set(person["sha256"]), [video[len(video) // 2 :][:200] for video in videos]
    found = []
    for path in files(clone):
        if path.name == "takedowns.jsonl":  # hashes of files are what it is for; the first digits of one are an id
            continue
        content = readable(path)
        if (
            file_sha256(path) in hashes
            or ids.search(content)
            or person["identity"].iloc[0].encode() in content
            or any(part in content for part in parts)
        ):
            found.append(path)
    return found


def network_of(person: pd.DataFrame, path: Path) -> Path:
    """Weights that say they were trained on the person; where they lie is noted."""
    known = TrainedOn(1, 1, ("CC0-1.0",), tuple(person["source_id"]), 1, 0, 0.9, 0.8, 1.0)
    save_small_syncnet(SmallSyncNet(), known, path)
    note_network(path)
    return path


def test_nothing_of_a_person_is_left_and_the_chain_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = read_table(trained / "data/sources/sources.parquet")
    encoded = read_table(trained / "data/encoded/samples.parquet")
    key = encoded.query("split == 'test' and audio_eligible")["identity"].iloc[0]
    person = sources[sources["identity"] == key]
    clips = read_table(trained / "data/clips.parquet")
    clip_ids = list(clips[clips["source_id"].isin(person["source_id"])]["clip_id"])
    videos = [(trained / "data/sources" / path).read_bytes() for path in person["path"]]
    monkeypatch.setenv("OMNIHUMAN_HOME", environment(trained, "takedown")["OMNIHUMAN_HOME"])
    network = network_of(person, tmp_path / "own.safetensors")
    inside = network_of(person, trained / "data/lip_sync.safetensors")
    before = traces(trained, person, clip_ids, videos)
    shown = [path for path in files(trained) if "artifacts" in path.parts and path.suffix in (".png", ".mp4")]
    places = {path.relative_to(trained.parent).parts[0] for path in before}
    assert places == {"omnihuman", "home", "remote", "bucket"} and shown
    assert any((trained.parent / "bucket/shards").iterdir()) and not list((trained / "data/encoded").glob("shard-*"))

    said = run(trained, "omnihuman", "data", "takedown", key, "--dry-run")
    for name in ("omnihuman 1", network):
        assert f"trained on this person: {name}\n" in said
    assert "nothing was removed" in said and f"on this person: {inside}" not in said
    assert traces(trained, person, clip_ids, videos) == before and not TakenDown(trained / "takedowns.jsonl").entries
    assert "no video has the takedown key" in run(trained, "omnihuman", "data", "takedown", "nobody", code=2)

    command = ["omnihuman", "data", "takedown", key]
    killed = subprocess.Popen(command, cwd=trained, env=environment(trained, "takedown"), stdout=subprocess.DEVNULL)
    assert wait_until(lambda: any((trained / ".dvc/tmp").glob("takedown-*.json")), 120)
    wait_until(lambda: len(list(files_of_data(trained))) < 3 or killed.poll() is not None, 0.5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    said = run(trained, *command)

    assert traces(trained, person, clip_ids, videos) == []
    assert not [path for path in shown if path.exists()] and not list((trained / "renders").iterdir())
    (entry,) = TakenDown(trained / "takedowns.jsonl").entries.values()
    assert entry.key_sha256 == key_sha256(key) and entry.models == (str(network), "omnihuman 1") and entry.finished
    assert set(person["sha256"]) <= set(entry.files_sha256) and key not in (trained / "takedowns.jsonl").read_text()
    assert network.exists() and not inside.exists() and "not known whether" not in said
    assert "trained on this person: omnihuman 1" in said and not list((trained / ".dvc/tmp").glob("takedown-*"))

    dvc(trained, "repro", "encode")
    assert set(sources["identity"]) - set(read_table(trained / "data/sources/sources.parquet")["identity"]) == {key}
    assert key not in set(read_table(trained / "data/encoded/samples.parquet")["identity"])
    assert traces(trained, person, clip_ids, videos) == []


def files_of_data(clone: Path) -> Iterator[Path]:
    return (clone / "data").rglob("*.mp4")


def test_lines_of_one_key_add_up(tmp_path: Path) -> None:
    record = tmp_path / "takedowns.jsonl"
    write_takedown(record, Takedown("k", ("b",), ("omnihuman 2",), "1", ""))
    write_takedown(record, Takedown("other"))
    write_takedown(record, Takedown("k", ("a",), ("omnihuman 1",), "2", "3"))
    lines = [json.loads(line) for line in record.read_text().splitlines()[1:]]
    assert [line["key_sha256"] for line in lines] == ["k", "other"]
    assert TakenDown(record).entries["k"] == Takedown("k", ("a", "b"), ("omnihuman 1", "omnihuman 2"), "1", "3")
