"""`omnihuman.render` from Python: frames or a file, progress, cancelling."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.tiny import DESCRIPTION, random_model

import omnihuman
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.errors import UserError
from omnihuman.inference.api import RenderCancelledError
from omnihuman.inference.generator import LoadedGenerator
from omnihuman.inference.verification import verify
from omnihuman.model.checkpoint import save_model

SAMPLING = Sampling(num_steps=2)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedGenerator:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", random_model(), DESCRIPTION)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (64, 48, 3), np.uint8)).save(tmp_path / "picture.png")
    wavfile.write(tmp_path / "sound.wav", 16000, random.normal(0, 3000, 16000).astype(np.int16))
    return omnihuman.load_generator(tmp_path / "model", SAMPLING)


def test_frames_come_back_where_no_file_is_named(tmp_path: Path, model: LoadedGenerator):
    told = []
    frames = omnihuman.render(
        str(tmp_path / "picture.png"),
        audio=str(tmp_path / "sound.wav"),
        model=model,
        progress=lambda finished, total: told.append((finished, total)),
    )
    assert isinstance(frames, np.ndarray) and frames.dtype == np.uint8
    assert frames.shape[0] == 25 and frames.shape[1] > frames.shape[2] and frames.shape[3] == 3
    assert told == [(number, 5) for number in range(6)]
    again = omnihuman.render(
        tmp_path / "picture.png", audio=tmp_path / "sound.wav", model=tmp_path / "model", sampling=SAMPLING
    )
    np.testing.assert_array_equal(frames, again)


def test_a_file_has_the_same_frames(tmp_path: Path, model: LoadedGenerator):
    given = {"image": tmp_path / "picture.png", "audio": tmp_path / "sound.wav", "model": model}
    frames = omnihuman.render(**given)
    written = omnihuman.render(**given, output=tmp_path / "video.mp4", config=Render(upscale=1, crf=1))
    assert not isinstance(written, np.ndarray) and written.num_frames == len(frames)
    with av.open(str(written.path)) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs((shown - frames.astype(float)) @ luma).mean() < 4, "colours are halved in H.264, brightness is not"


def test_a_cancelled_render_ends_within_a_step_and_goes_on_later(tmp_path: Path, model: LoadedGenerator):
    asked = []

    def after_two_segments() -> bool:
        asked.append(1)
        return len(asked) > 2 * SAMPLING.num_steps + 1

    given = {"image": tmp_path / "picture.png", "audio": tmp_path / "sound.wav", "model": model}
    given |= {"output": tmp_path / "video.mp4"}
    with pytest.raises(RenderCancelledError):
        omnihuman.render(**given, cancelled=after_two_segments)
    assert len(asked) == 2 * SAMPLING.num_steps + 2
    assert not list(tmp_path.glob("*video*"))
    assert len(list((tmp_path / "home").rglob("segment-*"))) == 2
    steps = []
    omnihuman.render(**given, cancelled=lambda: steps.append(1) is not None)
    assert len(steps) == 3 * SAMPLING.num_steps and (tmp_path / "video.mp4").is_file()
    assert not list((tmp_path / "home").rglob("segment-*"))


def test_mistakes_are_the_callers(tmp_path: Path, model: LoadedGenerator):
    with pytest.raises(UserError, match="nothing drives"):
        omnihuman.render(tmp_path / "picture.png", model=model)
    with pytest.raises(UserError, match=r"only \.mp4"):
        omnihuman.render(tmp_path / "picture.png", audio=tmp_path / "sound.wav", model=model, output="video.avi")
    with pytest.raises(UserError, match="is missing"):
        omnihuman.render(tmp_path / "picture.png", audio=tmp_path / "sound.wav", model=tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'rendre'"):
        omnihuman.rendre  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_a_folder_of_keypoints_is_rendered_and_no_path_is_told(tmp_path: Path, model: LoadedGenerator):
    folder = tmp_path / "key points"
    folder.mkdir()
    for number in range(3):
        points = [value for joint in range(18) for value in (10.0 + joint, 20.0 + number, 0.9)]
        told = {"people": [{"pose_keypoints_2d": points}], "canvas_width": 64, "canvas_height": 64}
        (folder / f"a_{number:012d}_keypoints.json").write_text(json.dumps(told))
    written = omnihuman.render(tmp_path / "picture.png", pose=folder, model=model, output=tmp_path / "video.mp4")
    assert not isinstance(written, np.ndarray) and written.num_frames == 3
    found = verify(written.path)
    assert found.unchanged and "pose_weights" not in found.provenance.parameters


def test_finished_segments_serve_another_label_but_no_other_text(tmp_path: Path, model: LoadedGenerator):
    steps = []
    given = {"image": tmp_path / "picture.png", "audio": tmp_path / "sound.wav", "model": model}
    given |= {"output": tmp_path / "video.mp4"}

    def count(limit: int) -> Callable[[], bool]:
        steps.clear()
        return lambda: steps.append(1) is not None or len(steps) > limit

    for changed, segments in (({"config": Render(label="made", crf=30)}, 3), ({"text": "a wave"}, 5)):
        with pytest.raises(RenderCancelledError):
            omnihuman.render(**given, cancelled=count(2 * SAMPLING.num_steps))
        omnihuman.render(**given | changed, cancelled=count(1000))
        assert len(steps) == segments * SAMPLING.num_steps


def test_importing_the_package_does_not_import_torch():
    program = "import sys, omnihuman; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
