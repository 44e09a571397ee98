"""Registering, resolving and lineage on real MLflow, git and DVC, with tiny random models."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.artifacts import download_artifacts
from PIL import Image
from scipy.io import wavfile
from tests.registered import finish_run, run, set_param
from tests.test_gate import figures
from tests.tiny import DESCRIPTION, random_model

from omnihuman import cli
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.errors import UserError
from omnihuman.inference.generator import load_generator
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest
from omnihuman.model.checkpoint import save_model
from omnihuman.registry.aliases import versions
from omnihuman.registry.origin import read_trained
from omnihuman.registry.register import register
from omnihuman.registry.store import connect, find
from omnihuman.registry.versions import resolve
from omnihuman.storage.files import file_sha256
from omnihuman.tracking.record import RunRecord

pytest_plugins = "tests.registry_fixtures"
pytestmark = pytest.mark.slow


def test_a_version_says_what_it_was_made_from(place: Path) -> None:
    version = resolve("3")
    tags = find(connect(), "3").tags
    lock = yaml.safe_load((place / "dvc.lock").read_text())
    assert version.aliases == ("candidate",) and version.name == "omnihuman"
    assert tags["git_commit"] == run(place, "git", "rev-parse", "HEAD") and tags["dirty"] == "false"
    assert tags["dvc_lock_sha256"] == file_sha256(place / "dvc.lock")
    assert tags["params_sha256"] == file_sha256(place / "params.yaml")
    assert tags["data_md5"] == lock["stages"]["encode"]["outs"][0]["md5"]
    assert tags["weights_sha256"] == version.sha256 == file_sha256(place / "models/3_pose/model.safetensors")
    assert version.run_id == json.loads((place / "runs/3_pose.json").read_text())["run_id"]
    for name in ("model.safetensors", "model.json"):
        assert (version.folder / name).read_bytes() == (place / "models/3_pose" / name).read_bytes()


def test_the_same_weights_and_figures_are_one_version_and_others_a_new_one(place: Path) -> None:
    assert [register(place).version for _ in range(2)] == [3, 3]
    finish_run(place, 2, figures())
    remeasured = register(place)
    assert remeasured.version == 4 and remeasured.sha256 == resolve("3").sha256
    finish_run(place, 9, figures())
    assert register(place).version == 5 and resolve("candidate").version == 5


def test_a_killed_registration_leaves_no_version_and_can_be_repeated(place: Path) -> None:
    finish_run(place, 5, figures())
    program = (
        "import os, signal; from pathlib import Path; from mlflow import MlflowClient\n"
        "MlflowClient.finalize_logged_model = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from omnihuman.registry.register import register; register(Path())"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=place, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL and len(versions()) == 3
    assert register(place).version == 4 and len(versions()) == 4


def test_uncommitted_code_is_refused_or_recorded(place: Path) -> None:
    (place / "code.py").write_bytes(b"first = '\xe9'\n")  # no UTF-8
    with pytest.raises(UserError, match=r"uncommitted changes in code\.py"):
        register(place)
    finish_run(place, 7, figures())
    version = register(place, allow_dirty=True)
    found = find(connect(), str(version.version))
    assert found.tags["dirty"] == "true"
    diff = Path(download_artifacts(f"models:/omnihuman/{version.version}/artifacts/uncommitted.diff"))
    assert b"\n+first = '\xe9'\n" in diff.read_bytes()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("core.quotePath", "true"), ("diff.noprefix", "true"), ("diff.external", "true"), ("color.diff", "always")],
)
def test_no_name_and_no_setting_of_git_hides_a_change(place: Path, setting: str, value: str) -> None:
    (place / "größe.py").write_bytes(b"first = 1\r\n")
    run(place, "git", "add", "größe.py")
    run(place, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "second")
    assert not read_trained(place).origin.dirty
    (place / "größe.py").write_bytes(b"first = '\xe9'\r\n")
    run(place, "git", "config", setting, value)
    with pytest.raises(UserError, match=r"uncommitted changes in größe\.py"):
        register(place)
    trained = read_trained(place)
    assert trained.origin.dirty and trained.changed == ("größe.py",)
    assert b'+++ "b/gr' in trained.changes and b"\n+first = '\xe9'\r\n" in trained.changes


def test_without_git_the_code_is_unknown_and_refused(place: Path) -> None:
    shutil.rmtree(place / ".git")
    with pytest.raises(UserError, match="version is unknown"):
        register(place)
    assert read_trained(place).origin.git_commit == "unknown"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: shutil.rmtree(root / "models"), "no model is trained yet"),
        (lambda root: (root / "reports/evaluation.json").unlink(), "not evaluated yet"),
        (lambda root: (root / "dvc.lock").unlink(), "what the model was made from"),
        (lambda root: save_model(root / "models/3_pose", random_model(8), DESCRIPTION), "not what dvc.lock records"),
        (lambda root: (root / "reports/evaluation.json").write_text("{}"), "evaluation.json is not what dvc.lock"),
        (lambda root: set_param(root, "sampling", "num_steps", 9), "sampling was changed after the step evaluate"),
        (lambda root: run_of_other_weights(root), "is the run of other weights"),
    ],
)
def test_what_does_not_belong_together_is_not_registered(
    place: Path, change: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(place)
    assert cli.main(["registry", "register"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and len(versions()) == 3


def run_of_other_weights(root: Path) -> None:
    record = RunRecord.load(root / "runs/3_pose.json")
    (root / "runs/3_pose.json").unlink()
    replace(record, sha256="0" * 64).save(root / "runs/3_pose.json")


def test_without_recorded_runs_a_version_has_none(place: Path) -> None:
    shutil.rmtree(place / "runs")
    assert read_trained(place).origin.run_ids == {}


def test_a_damaged_local_copy_is_fetched_again(place: Path) -> None:
    version = resolve("1")
    weights = version.folder / "model.safetensors"
    weights.write_bytes(b"damaged")
    assert resolve("1") == version and file_sha256(weights) == version.sha256


def test_a_damaged_store_is_named(place: Path) -> None:
    connect().set_model_version_tag("omnihuman", "2", "weights_sha256", "0" * 64)
    with pytest.raises(UserError, match=r"version 2 .*model\.safetensors .*not what was registered"):
        resolve("2")
    assert not list((place.parent / "home/models" / ("0" * 64)).glob("*/model.json"))


@pytest.fixture
def rendered(place: Path) -> Path:
    """A video rendered with version 2, and its sidecar."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 32, 3), dtype=np.uint8)).save(place / "made/i.png")
    wavfile.write(place / "made/s.wav", 16000, (9000 * np.sin(np.arange(8000) / 12)).astype(np.int16))
    request = RenderRequest(place / "made/i.png", place / "video.mp4", place / "made/s.wav")
    generator = load_generator(resolve("2").folder, Sampling(num_steps=1))
    render(request, generator, Render(), lambda *_: None)
    return request.output


def test_lineage_leads_from_a_video_to_its_data(
    place: Path, rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = find(connect(), "2").tags
    assert cli.main(["lineage", str(rendered)]) == 0
    text = capsys.readouterr().out
    facts = ("omnihuman version 2", find(connect(), "2").run_id, tags["git_commit"], tags["dvc_lock_sha256"],
             tags["data_md5"], tags["params_sha256"], "unchanged", file_sha256(place / "made/i.png"))  # fmt: skip
    assert not [fact for fact in facts if fact not in text]

    for subject in (f"{rendered}.json", "2"):
        assert cli.main(["lineage", subject, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["version"] == 2 and told["origin"]["data_md5"] == tags["data_md5"]
        assert told["runs"][0]["status"] == "FINISHED" and told["params"]["sampling"]["num_steps"] == 2
        assert (told["video"] is None) == (subject == "2")

    sidecar = rendered.with_name("video.mp4.json")
    told = sidecar.read_text()
    sidecar.unlink()
    assert cli.main(["lineage", str(rendered)]) == 0, "the manifest in the file leads there too"
    text = capsys.readouterr().out
    assert "omnihuman version 2" in text and "sidecar" in text and "none" in text
    assert "C2PA manifest, intact, signed on this machine by: OmniHuman local, self-made, proves no identity" in text
    sidecar.write_text(told)
    with rendered.open("ab") as file:
        file.write(b"changed")
    assert cli.main(["lineage", str(rendered)]) == 3
    text = capsys.readouterr().out
    assert "CHANGED" in text and "the file is not the one that the sidecar describes" in text


def test_lineage_of_weights_that_nobody_registered(
    place: Path, rendered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = RenderRequest(place / "made/i.png", rendered, place / "made/s.wav")
    generator = replace(load_generator(resolve("2").folder, Sampling(num_steps=1)), sha256="0" * 64)
    render(request, generator, Render(), lambda *_: None)
    assert cli.main(["lineage", str(rendered)]) == 0
    assert "in no registered version" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["registry", "promote", "7"], "no version 7"),
        (["registry", "promote", "9" * 23], f"no version {'9' * 23}"),
        (["registry", "promote", "9" * 5000], "no version 9999"),
        (["registry", "promote", "best"], "no alias 'best'"),
        (["registry", "promote", "3"], "may not become champion"),
        (["registry", "promote", "champion"], "no champion yet"),
        (["registry", "rollback"], "no champion yet"),
        (["registry", "delete", "7"], "no version 7"),
        (["lineage", "7"], "no version 7"),
        (["lineage", "no/such.mp4"], "no such file"),
        (["lineage", "code.py"], "no code.py.json beside it"),
    ],
)
def test_the_users_mistake_is_one_message_and_exit_code_2(
    place: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert said in shown.err and shown.err.count("error: ") == 1 and not shown.out


def test_an_empty_store_and_an_absent_server(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "empty"))
    assert cli.main(["registry", "promote"]) == 2 and "is registered yet" in capsys.readouterr().err
    assert cli.main(["registry", "list"]) == 0 and "no version" in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for arguments in (["list"], ["promote"], ["register"]):
        assert cli.main(["registry", *arguments]) == 2
        assert "no MLflow server answers" in capsys.readouterr().err
