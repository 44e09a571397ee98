"""Segments, long video and rendered files."""

from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.tiny import DESCRIPTION, ENCODERS, random_model

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.errors import UserError
from omnihuman.inference.generator import load_generator
from omnihuman.inference.provenance import Provenance, sidecar_path
from omnihuman.inference.render import render
from omnihuman.inference.request import InputOptions, RenderRequest
from omnihuman.media.picture import read_picture
from omnihuman.media.tracks import track_hashes
from omnihuman.model.checkpoint import save_model
from omnihuman.storage.files import file_sha256

SAMPLING = Sampling(num_steps=2, guidance_audio=2.0)
MEDIA = Path(__file__).parents[2] / "shared" / "media"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(
        folder,
        random_model(),
        DESCRIPTION,
    )
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a person.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 60, 4), np.uint8), "RGBA").save(path)
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "söund ' 1.wav"
    time = np.arange(round(1.37 * 22050)) / 22050
    wavfile.write(path, 22050, (9000 * np.sin(2 * np.pi * 220 * time)).astype(np.int16))
    return path


def rendered(request: RenderRequest, model: Path):
    return render(request, load_generator(model, SAMPLING), Render(upscale=2), lambda finished, total: None)


def test_a_rendered_file_is_as_long_as_its_sound(tmp_path: Path, model: Path, picture: Path, sound: Path):
    output = tmp_path / "out.mp4"
    result = rendered(RenderRequest(picture, output, audio=sound), model)
    with av.open(str(output)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        frames = sum(1 for _ in container.decode(video))
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (result.width, result.height) == (48, 80)
    assert abs(frames / 25 - 1.37) <= 1 / 25
    assert result.num_frames == frames > ENCODERS.num_frames


def test_a_pose_alone_drives_too(tmp_path: Path, model: Path, picture: Path):
    pose = tmp_path / "pose.npz"
    np.savez(pose, points=np.random.default_rng(0).random((30, 17, 3)), seconds=np.arange(30) / 30)
    request = RenderRequest(picture, tmp_path / "out.mp4", pose=pose)
    assert rendered(request, model).num_frames == 25
    without = track_hashes(request.output)
    rendered(replace(request, image_pose=pose), model)
    assert track_hashes(request.output) != without, "the pose in the picture acts"


def test_the_sidecar_says_what_a_video_was_made_of(tmp_path: Path, model: Path, picture: Path, sound: Path):
    output, config = tmp_path / "out.mp4", Render(upscale=2)
    generator = load_generator(model, SAMPLING)

    def recorded(text: str) -> Provenance:
        request = RenderRequest(picture, output, audio=sound, text=text)
        return render(request, generator, config, lambda finished, total: None).provenance

    first = recorded("a wave")
    assert Provenance.load(output) == first and sidecar_path(output).name == "out.mp4.json"
    assert first.inputs == {"image": file_sha256(picture), "audio": file_sha256(sound)}
    assert (first.model.name, first.model.version) == ("", None)
    assert first.model.sha256 == file_sha256(model / "model.safetensors")
    assert first.video_sha256 == file_sha256(output)
    settings = {**asdict(InputOptions()), **asdict(SAMPLING), **asdict(config)}
    del settings["pose_weights"]  # a place
    assert dict(first.parameters) == {"text": "a wave", "seed": 0, **settings}
    assert recorded("a wave").content_id == first.content_id != recorded("a nod").content_id
    sidecar_path(output).write_text("{}")
    with pytest.raises(UserError, match=r"out\.mp4\.json does not describe"):
        Provenance.load(output)
    sidecar_path(output).unlink()
    with pytest.raises(UserError, match=r"no out\.mp4\.json beside it"):
        Provenance.load(output)


def test_bad_requests_are_the_users_errors(tmp_path: Path, model: Path, picture: Path, sound: Path):
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    out = tmp_path / "out.mp4"
    cases = [
        (RenderRequest(picture, out), model, "nothing drives"),
        (RenderRequest(picture, out, audio=sound, image_pose=sound), model, "give --pose too"),
        (RenderRequest(picture, tmp_path / "out.avi", audio=sound), model, "only .mp4"),
        (RenderRequest(tmp_path / "none.png", out, audio=sound), model, "no such file"),
        (RenderRequest(text, out, audio=sound), model, "cannot be read as a picture"),
        (RenderRequest(picture, out, audio=empty), model, "empty.wav"),
        (RenderRequest(picture, out, audio=tmp_path / "none.wav"), model, "no such file"),
        (RenderRequest(picture, out, pose=sound), model, "is neither .npz nor .json nor a video"),
        (RenderRequest(picture, out, audio=sound), tmp_path, "is missing"),
    ]
    for request, folder, message in cases:
        with pytest.raises(UserError, match=message):
            rendered(request, folder)
    assert list(tmp_path.glob("*out*")) == []


def test_transparency_and_rotation(tmp_path: Path):
    image = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    image.save(tmp_path / "x.png", exif=exif)
    pixels = read_picture(tmp_path / "x.png")
    assert pixels.shape == (40, 20, 3) and (pixels == 255).all()


@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media with real pictures and sounds is not here")
def test_a_real_picture_and_a_real_sound(tmp_path: Path, model: Path):
    request = RenderRequest(
        MEDIA / "image" / "lp_s3.jpg", tmp_path / "x.mp4", audio=MEDIA / "audio" / "omniavatar_0.mp3"
    )
    result = rendered(request, model)
    with av.open(str(MEDIA / "audio" / "omniavatar_0.mp3")) as container:
        assert container.duration is not None
        assert abs(result.num_frames / 25 - container.duration / av.time_base) <= 0.1
