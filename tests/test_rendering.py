"""Batches in this process: content decides what is done, versions stay pinned, failures end where they should."""

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.batches import PARAMS, moments, prepared, random_version, states, submitted, write_jobs
from tests.tiny import DESCRIPTION, random_model

from omnihuman.errors import UserError
from omnihuman.inference.content_credentials import read_manifest
from omnihuman.inference.generator import load_generator
from omnihuman.inference.provenance import Provenance
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest
from omnihuman.media.probe import probe
from omnihuman.media.tracks import track_hashes
from omnihuman.model.checkpoint import save_model
from omnihuman.registry.versions import ModelVersion
from omnihuman.rendering.ledger import Ledger
from omnihuman.rendering.submit import enter, prepare, reopen, run
from omnihuman.rendering.worker import PARTIAL, Policy, validate, work
from omnihuman.storage.files import file_sha256

pytest_plugins = ["tests.batch_fixtures"]


def test_a_batch_is_rendered_once_with_one_pinned_version(
    inputs: Path, version: ModelVersion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(inputs / "p.npz", points=np.random.default_rng(0).random((12, 17, 3)), seconds=np.arange(12) / 25)
    jobs = write_jobs(
        inputs,
        {"image": "a.png", "output": "sub/a.mp4"},
        {"image": "a.png", "output": "again.mp4"},
        {"image": "b.png", "audio": None, "pose": "p.npz", "text": "<b>a wave</b>", "output": "pose only.mp4"},
    )
    output = tmp_path / "videos"
    report = submitted(jobs, output, version)
    assert report.exit_code == 0 and [outcome.lines for outcome in report.outcomes] == [(1, 2), (3,)]
    said = capsys.readouterr().err
    assert "1 of 2: sub/a.mp4, again.mp4 in " in said and "2 of 2: pose only.mp4 in " in said
    spoken, posed = probe(output / "sub/a.mp4"), probe(output / "pose only.mp4")
    assert (spoken.num_frames, spoken.audio_codec) == (10, "aac") and (posed.num_frames, posed.audio_codec) == (12, "")
    assert (output / "again.mp4").read_bytes() == (output / "sub/a.mp4").read_bytes()
    told = Provenance.load(output / "again.mp4")
    assert (told.model.name, told.model.version, told.model.sha256) == ("omnihuman", 1, version.sha256)
    assert told.inputs == {"image": file_sha256(inputs / "a.png"), "audio": file_sha256(inputs / "s.wav")}
    assert told.video_sha256 == file_sha256(output / "again.mp4")
    direct = tmp_path / "direct.mp4"
    generator = load_generator(version.folder, PARAMS.sampling)
    render(
        RenderRequest(inputs / "a.png", direct, inputs / "s.wav"), generator, PARAMS.render, lambda done, total: None
    )
    assert track_hashes(direct) == told.tracks_sha256, "a batch renders what `omnihuman render` does"
    manifest = read_manifest(output / "again.mp4")
    assert manifest and not manifest.broken and manifest.provenance
    assert (manifest.provenance.model, manifest.provenance.content_id) == (told.model, told.content_id)
    written = json.loads((output / "report.json").read_text())
    assert written["counts"] == {"done": 2} and written["model"]["version"] == 1
    page = (output / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and "&lt;b&gt;a wave" in page and "pose%20only.mp4" in page
    assert not list((output / PARTIAL).iterdir())

    before = moments(output)
    assert submitted(jobs, output, version).exit_code == 0 and moments(output) == before
    assert "2 of 2 are done or dead already" in capsys.readouterr().err


def test_content_decides_what_is_done(inputs: Path, version: ModelVersion, tmp_path: Path) -> None:
    output = tmp_path / "videos"
    submitted(write_jobs(inputs, {"image": "a.png", "output": "a.mp4"}), output, version)
    jobs = write_jobs(inputs, {"image": "a.png", "output": "other name.mp4"}, {"image": "b.png", "output": "b.mp4"})
    before = moments(output)
    submitted(jobs, output, version)
    assert moments(output)["a.mp4"] == before["a.mp4"]
    assert (output / "other name.mp4").samefile(output / "a.mp4"), "the video was only given its new name"
    assert len(list(output.glob("manifest-*.json"))) == 1, "the manifest before is kept"

    (output / "other name.mp4").unlink()
    (output / "a.mp4").write_bytes(b"edited")
    (output / "b.mp4").with_name("b.mp4.json").unlink()
    assert states(submitted(jobs, output, version)) == ["done", "done"]
    for name in ("other name.mp4", "b.mp4"):
        assert Provenance.load(output / name).video_sha256 == file_sha256(output / name)
    (output / "ledger.sqlite").unlink()
    before = moments(output)
    submitted(jobs, output, version)
    assert moments(output) == before, "without the ledger the sidecars tell what is done"


def test_an_unended_batch_keeps_its_version_and_an_ended_one_takes_the_champion(
    inputs: Path, version: ModelVersion, tmp_path: Path
) -> None:
    jobs, output = write_jobs(inputs, {"image": "a.png", "output": "a.mp4"}), tmp_path / "videos"
    known = {"1": version, "2": random_version(tmp_path / "second", 2)}
    known["champion"] = known["2"]
    enter(prepared(jobs, output, version))
    again = prepare(jobs, output, PARAMS, None, known.__getitem__)
    assert again.manifest.model.version == 1 and again.model == version.folder
    assert prepare(jobs, output, PARAMS, "2", known.__getitem__).manifest.model.version == 2
    assert reopen(output, known.__getitem__) == again
    with pytest.raises(UserError, match="has other weights in the registry now"):
        reopen(output, lambda reference: replace(version, sha256="0" * 64))
    run(again, 1, 60.0)
    newer = prepare(jobs, output, PARAMS, None, known.__getitem__)
    assert newer.manifest.model.version == 2
    enter(newer)
    assert run(newer, 1, 60.0).exit_code == 0
    assert Provenance.load(output / "a.mp4").model.version == 2


def test_weights_other_than_the_pinned_ones_are_refused(inputs: Path, version: ModelVersion, tmp_path: Path) -> None:
    jobs, output = write_jobs(inputs, {"image": "a.png"}), tmp_path / "videos"
    save_model(version.folder, random_model(seed=9), DESCRIPTION)
    with pytest.raises(UserError, match="the batch is pinned to"):
        submitted(jobs, output, version)
    assert not list(output.glob("*.mp4"))


def test_bad_input_is_dead_at_once_and_the_others_are_rendered(
    inputs: Path, version: ModelVersion, tmp_path: Path
) -> None:
    (inputs / "text.png").write_text("no picture")
    jobs = write_jobs(inputs, {"image": "text.png", "output": "t.mp4"}, {"image": "a.png"}, {"image": "b.png"})
    output = tmp_path / "videos"
    batch = prepared(jobs, output, version)
    enter(batch)
    Image.new("RGB", (60, 60)).save(inputs / "b.png")
    report = run(batch, 1, 60.0)
    assert report.exit_code == 3 and states(report) == ["dead", "done", "dead"]
    assert replace(report, outcomes=(report.outcomes[0], report.outcomes[2])).exit_code == 1
    assert [outcome.attempts for outcome in report.outcomes] == [1, 1, 1]
    assert "cannot be read as a picture" in report.outcomes[0].error
    assert "has changed since the jobs were submitted" in report.outcomes[2].error
    assert "cannot be read as a picture" in (output / "report.html").read_text()
    assert [path.name for path in output.glob("t.*")] == []
    assert states(run(batch, 1, 60.0)) == ["dead", "done", "dead"]
    Image.new("RGB", (60, 60), "red").save(inputs / "text.png")
    assert states(submitted(jobs, output, version)) == ["done", "done", "done"], "mended files are another content"


def test_a_transient_failure_is_tried_again(
    inputs: Path, version: ModelVersion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "videos"
    batch = prepared(write_jobs(inputs, {"image": "a.png", "output": "sub/a.mp4"}), output, version)
    enter(batch)
    (output / "sub").write_text("a file where the folder should be")
    tries: list[int] = []

    def changed() -> None:
        (item,) = Ledger(output).items()
        tries.append(item.attempt)
        if item.attempt == 2 and item.state == "failed":
            (output / "sub").unlink(missing_ok=True)

    work(output, version.folder, Policy(backoff_seconds=0.05), changed)
    assert sorted(set(tries)) == [1, 2, 3] and (output / "sub/a.mp4").is_file()
    assert Ledger(output).items()[0].error == "" and "attempt 1 failed" in caplog.text
    assert not list((output / PARTIAL).iterdir())

    (output / "sub/a.mp4").unlink()
    (output / "sub/a.mp4").mkdir()
    enter(batch)
    work(output, version.folder, Policy(backoff_seconds=0.01, max_attempts=2), lambda: None)
    (item,) = Ledger(output).items()
    assert (item.state, item.attempt) == ("dead", 2) and "IsADirectoryError" in item.error


def test_a_video_that_is_not_what_was_rendered_is_not_published(
    inputs: Path, version: ModelVersion, tmp_path: Path
) -> None:
    generator = load_generator(version.folder, PARAMS.sampling)
    request = RenderRequest(inputs / "a.png", tmp_path / "a.mp4", inputs / "s.wav")
    video = render(request, generator, PARAMS.render, lambda done, total: None)
    validate(video)
    for wrong in ({"num_frames": 11}, {"width": 64}, {"fps": 20.0}, {"sound_seconds": 0.0}, {"sound_seconds": 1.0}):
        with pytest.raises(ValueError, match="the written file"):
            validate(replace(video, **wrong))
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:-2000])
    with pytest.raises(ValueError):
        validate(video)


def test_a_worker_that_lost_its_lease_publishes_nothing(
    inputs: Path, version: ModelVersion, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "videos"
    batch = prepared(write_jobs(inputs, {"image": "a.png", "output": "a.mp4"}), output, version)
    enter(batch)
    stolen = iter([True])

    class Thief(Ledger):
        """Another worker takes the item just before the first one publishes, as if its lease had run out."""

        def renew(self, lease: Any, lease_seconds: float) -> bool:
            if next(stolen, False):
                with sqlite3.connect(output / "ledger.sqlite") as database:
                    database.execute("UPDATE item SET token = 99, owner = 'thief', lease_until = 0")
            return super().renew(lease, lease_seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnihuman.rendering.worker.Ledger", Thief)
        work(output, version.folder, Policy(), lambda: None)
    assert "another worker has it now" in caplog.text
    (item,) = Ledger(output).items()
    assert (item.state, item.attempt) == ("done", 2) and not list((output / PARTIAL).iterdir())
