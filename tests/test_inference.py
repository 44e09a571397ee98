"""Segments, long video and rendered files."""

from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.tiny import DESCRIPTION, ENCODERS, WIDTHS, random_conditions, random_model

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.encoders.video_codec import num_latent_frames
from omnihuman.errors import UserError
from omnihuman.inference.activation import active_conditions
from omnihuman.inference.chaining import VideoInputs, num_segments
from omnihuman.inference.generator import Generator, load_generator
from omnihuman.inference.long_video import generate_video
from omnihuman.inference.provenance import Provenance, sidecar_path
from omnihuman.inference.render import record_rendered, render
from omnihuman.inference.request import InputOptions, RenderRequest
from omnihuman.media.picture import read_picture
from omnihuman.model.checkpoint import save_model
from omnihuman.storage.files import file_sha256

SAMPLING = Sampling(num_steps=2, guidance_audio=2.0)
MEDIA = Path(__file__).parents[2] / "shared" / "media"


def generator() -> Generator:
    return Generator(random_model(), ENCODERS, SAMPLING)


def inputs(num_frames: int) -> VideoInputs:
    random = np.random.default_rng(0)
    return VideoInputs(
        num_frames=num_frames,
        reference=random.standard_normal((WIDTHS.latent_channels, 4, 4)).astype(np.float32),
        reference_keypoints=np.zeros((17, 3), np.float32),
        text=random.standard_normal((2, 64)).astype(np.float32),
        speech=random.standard_normal((num_frames, 1, WIDTHS.speech_width)).astype(np.float32),
        keypoints=np.zeros((1, 17, 3), np.float32),
        active=active_conditions(audio=True, pose=False),
    )


@pytest.mark.parametrize(("frames", "segments"), [(1, 1), (9, 1), (10, 2), (13, 2), (14, 3), (100, 24)])
def test_number_of_segments(frames: int, segments: int):
    assert num_segments(frames, 9) == segments


@pytest.mark.parametrize("frames", [1, 9, 10, 26])
def test_long_video_has_exactly_the_asked_length(frames: int):
    parts = list(generate_video(generator(), inputs(frames), seed=0))
    assert sum(len(part) for part in parts) == frames
    assert len(parts) == num_segments(frames, 9)
    assert parts[0].shape[1:] == (32, 32, 3)
    assert all(part.min() >= 0.0 and part.max() <= 1.0 for part in parts)


def test_same_seed_same_video_and_another_seed_another():
    first, again, other = (np.concatenate(list(generate_video(generator(), inputs(20), seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_noise_belongs_to_the_segment_and_not_to_its_batch():
    conditions = random_conditions(height=4, width=4)
    together = generator().segment(conditions, num_latent_frames(9), [(1, "a"), (1, "b")])
    swapped = generator().segment(conditions, num_latent_frames(9), [(1, "b"), (1, "a")])
    assert (together - swapped).abs().max() > 1e-3
    again = generator().segment(conditions, num_latent_frames(9), [(1, "a"), (1, "b")])
    np.testing.assert_array_equal(together, again)


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
    without = file_sha256(request.output)
    rendered(replace(request, image_pose=pose), model)
    assert file_sha256(request.output) != without, "the pose in the picture acts"


def test_the_sidecar_says_what_a_video_was_made_of(tmp_path: Path, model: Path, picture: Path, sound: Path):
    output, config = tmp_path / "out.mp4", Render(upscale=2)
    generator = load_generator(model, SAMPLING)

    def recorded(text: str) -> Provenance:
        request = RenderRequest(picture, output, audio=sound, text=text)
        render(request, generator, config, lambda finished, total: None)
        return record_rendered(request, generator, config)

    first = recorded("a wave")
    assert Provenance.load(output) == first and sidecar_path(output).name == "out.mp4.json"
    assert first.inputs == {"image": file_sha256(picture), "audio": file_sha256(sound)}
    assert (first.model.name, first.model.version) == ("", None)
    assert first.model.sha256 == file_sha256(model / "model.safetensors")
    assert first.video_sha256 == file_sha256(output)
    assert dict(first.parameters) == {
        "text": "a wave", "seed": 0, **asdict(InputOptions()), **asdict(SAMPLING), **asdict(config),
    }  # fmt: skip
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
    image = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    image.save(tmp_path / "x.png", exif=exif)
    pixels = read_picture(tmp_path / "x.png")
    assert pixels.shape == (20, 10, 3) and (pixels == 255).all()


@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media with real pictures and sounds is not here")
def test_a_real_picture_and_a_real_sound(tmp_path: Path, model: Path):
    request = RenderRequest(
        MEDIA / "image" / "lp_s3.jpg", tmp_path / "x.mp4", audio=MEDIA / "audio" / "omniavatar_0.mp3"
    )
    result = rendered(request, model)
    with av.open(str(MEDIA / "audio" / "omniavatar_0.mp3")) as container:
        assert container.duration is not None
        assert abs(result.num_frames / 25 - container.duration / av.time_base) <= 0.1
