"""Shards on disk and on S3: the same clips, few bytes, and what is broken named before training begins."""

import os
import pickle
import socket
import threading
from contextlib import closing, suppress
from dataclasses import fields, replace
from pathlib import Path

import boto3
import numpy as np
import pytest
from tests.s3_server import BUCKET
from tests.test_training import FIRST
from tests.tiny import ENCODERS, random_clip, write_encoded

from omnihuman.batch import Sound
from omnihuman.data.shard_reading import ShardReader, load_clip, place_of_shards
from omnihuman.data.shards import EncodedClip, Encoders, save_shard
from omnihuman.data.speech_features import speech_features, to_int16, with_speech
from omnihuman.encoders.speech import LogMel
from omnihuman.errors import UserError
from omnihuman.storage.ranges import LocalFiles, files_at
from omnihuman.training.run import train_stage

SHARD = "shard-00000.safetensors"


@pytest.fixture
def s3(s3_server: None) -> str:
    return f"s3://{BUCKET}"


def upload(folder: Path, prefix: str) -> None:
    client = boto3.client("s3")
    for path in folder.iterdir():
        client.upload_file(str(path), BUCKET, f"{prefix}/{path.name}")


def assert_equal_clips(one: EncodedClip, other: EncodedClip) -> None:
    for field in fields(EncodedClip):
        left, right = getattr(one, field.name), getattr(other, field.name)
        assert left.dtype == right.dtype and right.flags.writeable, field.name
        np.testing.assert_array_equal(left, right, err_msg=field.name)


def test_a_clip_reads_back_as_it_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    clips = {f"clip-{number}": random_clip(random, num_frames=20 + number) for number in range(5)}
    clips["silent"] = replace(clips["clip-0"], sound=np.zeros(0, np.int16))
    save_shard(tmp_path / SHARD, clips.items(), ENCODERS)
    reader = ShardReader(tmp_path)
    for name, clip in clips.items():
        assert_equal_clips(clip, reader.clip(SHARD, name))
    assert_equal_clips(clips["clip-3"], load_clip(tmp_path / SHARD, "clip-3"))


def test_only_the_clips_own_bytes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    clip = random_clip(random)
    save_shard(tmp_path / SHARD, [(f"clip-{number}", clip) for number in range(20)], ENCODERS)
    reader, asked = ShardReader(tmp_path), []
    read = LocalFiles.read
    monkeypatch.setattr(LocalFiles, "read", lambda self, name, ranges: asked.extend(ranges) or read(self, name, ranges))
    reader.clip(SHARD, "clip-7")
    assert sum(stop - start for start, stop in asked) == sum(getattr(clip, f.name).nbytes for f in fields(clip))
    assert len(asked) <= 4, "tensors of one type lie side by side"


@pytest.mark.slow
def test_s3_gives_the_same_clips_also_to_other_processes(tmp_path: Path, s3: str) -> None:
    write_encoded(tmp_path / "encoded", [(True, True), (False, False)])
    upload(tmp_path / "encoded", "corpus/v1")
    reader = ShardReader(f"{s3}/corpus/v1")
    reader.check({SHARD: ["clip-0", "clip-1"]}, ENCODERS)
    for name in ("clip-0", "clip-1"):
        assert_equal_clips(load_clip(tmp_path / "encoded" / SHARD, name), reader.clip(SHARD, name))
    copied = pickle.loads(pickle.dumps(reader))
    assert_equal_clips(reader.clip(SHARD, "clip-1"), copied.clip(SHARD, "clip-1"))
    if (child := os.fork()) == 0:  # as a loader's worker does
        os._exit(0 if reader.clip(SHARD, "clip-0").latents.size else 1)
    assert os.waitpid(child, 0)[1] == 0


class Breaking:
    """A proxy before the S3 server that cuts the connection in the middle of the first `cuts` answers with a body."""

    def __init__(self, server: str, cuts: int) -> None:
        self.cuts, self._server = cuts, ("127.0.0.1", int(server.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed at the end
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server, suppress(OSError):
            threading.Thread(target=self._hand_on, args=(client, server), daemon=True).start()
            while data := server.recv(1 << 16):
                if self.cuts and data.startswith(b"HTTP/1.1 206"):
                    self.cuts -= 1
                    head = data.index(b"\r\n\r\n") + 4
                    client.sendall(data[: head + (len(data) - head) // 2])
                    client.shutdown(socket.SHUT_RDWR)  # to close it says nothing while another thread waits for it
                    return
                client.sendall(data)

    def _hand_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [1, 2])
def test_an_answer_that_breaks_off_is_asked_for_again(
    tmp_path: Path, s3: str, s3_address: str, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)])
    upload(tmp_path / "encoded", "breaking")
    with closing(Breaking(s3_address, cuts)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        clip = ShardReader(f"{s3}/breaking").clip(SHARD, "clip-0")
        assert proxy.cuts == 0, "nothing broke off"
        assert_equal_clips(load_clip(tmp_path / "encoded" / SHARD, "clip-0"), clip)
        proxy.cuts = 1000
        with pytest.raises(UserError, match=rf"{s3}/breaking/{SHARD} broke off 5 times .*: check the network"):
            ShardReader(f"{s3}/breaking").clip(SHARD, "clip-0")


@pytest.mark.slow
def test_training_from_s3_equals_training_from_disk(tmp_path: Path, s3: str, monkeypatch) -> None:
    write_encoded(tmp_path / "encoded", [(True, True), (False, False)])
    upload(tmp_path / "encoded", "corpus/v2")
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    train_stage(FIRST, tmp_path / "encoded", tmp_path / "one")
    (tmp_path / "encoded" / SHARD).unlink()
    monkeypatch.setenv("OMNIHUMAN_SHARDS", f"{s3}/corpus/v2")
    assert place_of_shards(tmp_path) == f"{s3}/corpus/v2"
    train_stage(FIRST, tmp_path / "encoded", tmp_path / "other")
    curves = [(tmp_path / run / FIRST.name / "loss.csv").read_text() for run in ("one", "other")]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_what_s3_lacks_is_named(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=rf"{s3}/nowhere/{SHARD} cannot be read: NoSuchKey; copy it there again"):
        ShardReader(f"{s3}/nowhere").check({SHARD: []}, ENCODERS)
    with pytest.raises(UserError, match="NoSuchBucket; check the address"):
        ShardReader("s3://no-such-bucket").check({SHARD: []}, ENCODERS)
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"empty/{SHARD}", Body=b"")
    with pytest.raises(UserError, match="truncated"):
        ShardReader(f"{s3}/empty").check({SHARD: []}, ENCODERS)
    with pytest.raises(UserError, match="s3://bucket/prefix"):
        files_at("s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("omnihuman.storage.ranges._ATTEMPTS", 1)
    with pytest.raises(UserError, match="check AWS_"):
        ShardReader(s3).check({SHARD: []}, ENCODERS)


def other_codec() -> Encoders:
    return replace(ENCODERS, video_codec="wan", video_weights="anywhere")


def one_clip(name: str) -> list[tuple[str, EncodedClip]]:
    return [(name, random_clip(np.random.default_rng(0)))]


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), r"has \d+ of \d+ bytes: it is truncated"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "ends within its header"),
        (lambda path: path.write_bytes(b""), "ends within its header"),
        (lambda path: path.write_bytes((16).to_bytes(8, "little") + b"x" * 99), "no safetensors file"),
        (lambda path: path.write_bytes((4).to_bytes(8, "little") + b"[1] "), "no safetensors file"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: save_shard(path, one_clip("clip-0"), other_codec()), "encoded by others"),
        (lambda path: save_shard(path, one_clip("clip-9"), ENCODERS), "does not hold clip-0"),
    ],
)  # fmt: skip
def test_a_broken_shard_stops_the_stage_before_a_model_is_made(tmp_path: Path, monkeypatch, breaks, said: str) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)])
    breaks(tmp_path / "encoded" / SHARD)
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("omnihuman.training.run.initial_model", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(UserError, match=said) as caught:
        train_stage(FIRST, tmp_path / "encoded", tmp_path / "models")
    assert SHARD in str(caught.value)


def test_paths_of_the_weights_do_not_make_another_codec() -> None:
    assert replace(ENCODERS, video_weights="elsewhere").fingerprint == ENCODERS.fingerprint
    assert other_codec().fingerprint != ENCODERS.fingerprint


@pytest.mark.parametrize("has_sound", [True, False])
def test_features_that_were_not_stored_are_made_of_the_sound(has_sound: bool) -> None:
    random = np.random.default_rng(0)
    clip = random_clip(random)
    sound = Sound(random.uniform(-0.3, 0.3, 30 * 640).astype(np.float32), 16_000) if has_sound else None
    stored = replace(clip, sound=to_int16(sound), speech=speech_features(LogMel(), sound, 30, 25.0))
    assert with_speech(stored, ENCODERS) is stored
    without = replace(stored, speech=stored.speech[:0])
    made = with_speech(without, ENCODERS).speech
    assert made.dtype == np.float16 and made.any() == has_sound
    np.testing.assert_allclose(made, stored.speech, atol=5e-3)
    assert not with_speech(without, ENCODERS, needed=False).speech.any()
