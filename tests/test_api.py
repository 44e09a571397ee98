"""`omnihuman.render` from Python: frames or a file, progress, cancelling."""

import subprocess
import sys
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


def test_importing_the_package_does_not_import_torch():
    program = "import sys, omnihuman; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
