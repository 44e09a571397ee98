"""Rendering from whatever a person gives, through the real command line, with a tiny random model."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.test_pose_inputs import drawn, moving, write_pictures
from tests.tiny import DESCRIPTION, ENCODERS, random_model

from omnihuman import cli
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference.generator import LoadedGenerator, load_generator
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest
from omnihuman.media.picture import read_picture
from omnihuman.media.sound import read_whole_sound
from omnihuman.model.checkpoint import save_model

ROOT = Path(__file__).parents[1]
MEDIA = ROOT.parent / "shared" / "media"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, random_model(), DESCRIPTION)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files with spaces"
    folder.mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (90, 60, 3), np.uint8)).save(folder / "a.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    tone = (9000 * np.sin(np.arange(8000) * 0.1)).astype(np.int16)
    wavfile.write(folder / "half.wav", 16_000, tone)
    wavfile.write(folder / "nothing.wav", 16_000, tone[:0])
    wavfile.write(folder / "silence.wav", 44_100, np.zeros(22_050, np.int16))
    (folder / "corrupt.mp3").write_bytes(random.bytes(5000))
    (folder / "corrupt.json").write_text('{"people": [{"pose_keypoints_2d": [1, 2]}]}')
    (folder / "nobody.json").write_text(json.dumps({"people": []}))
    write_pictures(folder / "skeleton.mp4", [drawn(frame) for frame in moving(15)], 30)
    write_pictures(folder / "person.mp4", list(random.integers(0, 255, (6, 64, 64, 3), np.uint8)), 25)
    return folder


def run(model: Path, files: Path, *arguments: str) -> int:
    """The command line in this process; names of files are completed."""
    known = {path.name for path in files.iterdir()}
    named = [str(files / argument) if argument in known else argument for argument in arguments]
    return cli.main(["render", "--model", str(model), "-o", str(files / "out.mp4"), *named])


BAD = [
    (("--image", "dot.png", "--audio", "half.wav"), "1 x 1 pixels are too few"),
    (("--image", "huge.png", "--audio", "half.wav"), "below 64 megapixels"),
    (("--image", "a.png", "--audio", "corrupt.mp3"), "cannot be read"),
    (("--image", "a.png", "--audio", "nothing.wav"), "holds no sound"),
    (("--image", "a.png", "--audio", "person.mp4"), "holds no sound"),
    (("--image", "a.png", "--pose", "corrupt.json"), "neither OpenPose's people"),
    (("--image", "a.png", "--pose", "nobody.json"), "shows nobody"),
    (("--image", "a.png", "--pose", "person.mp4"), "--pose-weights FOLDER"),
    (("--image", "a.png", "--video", "person.mp4"), "--pose-weights FOLDER"),
    (("--image", "a.png", "--video", "skeleton.mp4", "--video-sound"), "holds no sound"),
    (("--image", "a.png", "--audio", "half.wav", "--video-sound"), "give --video"),
    (("--image", "a.png", "--audio", "half.wav", "--width", "9999"), "at most 8192"),
    (("--image", "a.png"), "nothing drives the video"),
]


def test_bad_inputs_are_one_message_exit_code_2_and_no_half_file(
    model: Path, files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    before = {path.name for path in files.iterdir()}
    for arguments, message in BAD:
        assert run(model, files, *arguments) == 2, arguments
        said = capsys.readouterr().err
        assert said.count("error: ") == 1 and message in said and "Traceback" not in said, (arguments, said)
        assert {path.name for path in files.iterdir()} == before


def test_odd_inputs_that_are_no_mistakes_render_and_are_said(
    model: Path, files: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    caplog.set_level(logging.INFO, logger="omnihuman")
    assert (
        run(model, files, "--image", "a.png", "--audio", "silence.wav", "--text", "字" * 1000 + " слово" * 20_000) == 0
    )
    for said in ("no face is seen", "is silence", "tokens, the model reads the first 6"):
        assert said in caplog.text
    assert num_frames(files / "out.mp4") in (12, 13)
    assert read_whole_sound(9.0, 48_000, files / "out.mp4").sample_rate == 44_100  # pyright: ignore[reportOptionalMemberAccess]
    assert run(model, files, "--image", "a.png", "--video", "skeleton.mp4", "--short-side", "16") == 0
    with av.open(str(files / "out.mp4")) as container:
        assert not container.streams.audio and num_frames(files / "out.mp4") == 13  # 15 frames at 30 a second
    told = json.loads((files / "out.mp4.json").read_text(encoding="utf-8"))
    assert set(told["inputs"]) == {"image", "video"} and told["parameters"]["model_short_side"] == 16
    caplog.clear()
    assert run(model, files, "--image", "a.png", "--audio", "silence.wav", "--pose", "skeleton.mp4") == 0
    assert "pose" not in caplog.text.replace("skeleton", ""), "lengths within a frame are not worth a word"


def num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
def test_the_command_from_outside(model: Path, files: Path) -> None:
    command = [sys.executable, "-m", "omnihuman.cli", "render", "--model", str(model), "-o", str(files / "out.mp4")]
    inputs = ["--image", str(files / "a.png"), "--audio", str(files / "corrupt.mp3")]
    done = subprocess.run([*command, *inputs], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1 and not list(files.glob("*out*"))


def first_second(path: Path, folder: Path) -> Path:
    """The beginning of a sound file, in its own coding."""
    cut = folder / path.name
    with av.open(str(path)) as source, av.open(str(cut), "w") as target:
        stream = source.streams.audio[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or float(packet.pts * packet.time_base) >= 1.0:
                break
            packet.stream = copied
            target.mux(packet)
    return cut


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media with real pictures and sounds is not here")
def test_every_picture_and_every_sound_renders_at_its_native_aspect(tmp_path: Path, model: Path) -> None:
    loaded: LoadedGenerator = load_generator(model, Sampling(num_steps=1, guidance_audio=1.0))
    larger = replace(loaded, encoders=replace(ENCODERS, resolutions=(9216,)))
    pictures, sounds = sorted((MEDIA / "image").iterdir()), sorted((MEDIA / "audio").iterdir())
    assert len(pictures) >= 10 and len(sounds) >= 10
    for number in range(max(len(pictures), len(sounds))):
        picture = pictures[number % len(pictures)]
        sound = first_second(sounds[number % len(sounds)], tmp_path)
        output = tmp_path / "out.mp4"
        made = render(RenderRequest(picture, output, audio=sound), larger, Render(upscale=1), lambda done, total: None)
        heard = read_whole_sound(60.0, 48_000, sound)
        assert heard is not None
        seconds = len(heard.samples) / heard.sample_rate
        assert abs(num_frames(output) / 25 - seconds) <= 1 / 25 and seconds > 0.9, sound.name
        height, width = read_picture(picture).shape[:2]
        change = (made.width / made.height) / (width / height)
        rounding = (1 + ENCODERS.size_multiple / 2 / min(made.width, made.height)) ** 2
        assert 1 / rounding <= change <= rounding, (picture.name, made.width, made.height)
        written = read_whole_sound(60.0, 48_000, output)
        assert written is not None and abs(len(written.samples) / written.sample_rate - seconds) <= 0.05
        assert written.samples.ndim == heard.samples.ndim, "stereo stays stereo"
