"""Writing and reading back: pictures by time stamp, colours, and sound in step with the pictures."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from omnihuman.batch import Sound
from omnihuman.media.probe import probe
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames, stream_frames
from omnihuman.media.write import write_video

MEDIA = Path(__file__).parents[2] / "shared" / "media"
FRAME_SECONDS = 1 / 25


def soft_pictures(num_frames: int, height: int = 96, width: int = 128) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(40, 216, (5, 7, 3)).astype(np.uint8)
    picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return [np.roll(picture, index, axis=1) for index in range(num_frames)]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


def encode(path: Path, codec: str, frames: list[np.ndarray], fps: int = 25, rotation: int = 0) -> Path:
    """Files that `write_video` does not make."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_round_trip_keeps_frames_times_colours_and_length_of_sound(tmp_path: Path) -> None:
    frames = soft_pictures(40)
    sound = Sound(np.random.default_rng(0).normal(0, 0.1, 30_001).astype(np.float32), 16000)
    write_video(tmp_path / "a.mp4", frames, 25.0, sound)
    read = read_frames(tmp_path / "a.mp4", fps=25.0)
    assert read.pixels.shape == (40, 96, 128, 3)
    assert read.seconds == pytest.approx(np.arange(40) / 25, abs=1e-4)
    assert psnr(read.pixels, np.stack(frames)) > 33
    assert len(read_sound(tmp_path / "a.mp4").samples) == 30_001
    assert [seconds for seconds, _, _ in stream_frames(tmp_path / "a.mp4", 48)] == pytest.approx(np.arange(40) / 25)
    write_video(tmp_path / "b.mp4", frames, 25.0, sound)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_pure_colours_survive(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 150, 120]], np.uint8)
    picture = np.repeat(np.repeat(colours[None], 64, axis=0), 32, axis=1)
    write_video(tmp_path / "a.mp4", [picture] * 3, 25.0)
    read = read_frames(tmp_path / "a.mp4", fps=25.0).pixels[1, 32, 16::32]
    assert np.abs(read.astype(int) - colours).max() <= 4


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("fps", [24000 / 1001, 30000 / 1001, 60.0])
def test_a_flash_and_a_click_stay_together(fps: float, suffix: str, tmp_path: Path) -> None:
    flash = round(1.7 * fps)
    frames = [np.full((64, 64, 3), 255 if index == flash else 20, np.uint8) for index in range(round(3 * fps))]
    samples = np.zeros(3 * 44100, np.float32)
    samples[round(flash / fps * 44100)] = 0.9
    path = tmp_path / f"a{suffix}"
    write_video(path, frames, fps, Sound(samples, 44100))
    # At 60 fps the grid of 25 fps may pass over the one bright picture, so the file's own rate is read.
    for start in (0.0, 1.0):
        read = read_frames(path, fps=fps, start_seconds=start)
        sound = read_sound(path, start_seconds=start)
        seen = read.seconds[read.pixels.mean(axis=(1, 2, 3)).argmax()]
        heard = start + np.abs(sound.samples).argmax() / 16000
        assert abs(seen - flash / fps) < 2e-3
        assert abs(heard - seen) < FRAME_SECONDS / 8


@pytest.mark.parametrize("fps", [12.5, 23.976, 30.0, 59.94])
def test_model_time_is_kept_by_time_stamps(fps: float, tmp_path: Path) -> None:
    frames = [np.full((32, 32, 3), index, np.uint8) for index in range(int(4 * fps))]
    write_video(tmp_path / "a.mp4", frames, fps)
    read = read_frames(tmp_path / "a.mp4", fps=25.0, start_seconds=1.0, end_seconds=3.0)
    assert len(read.seconds) == 50
    assert np.abs(read.seconds - (1 + np.arange(50) / 25)).max() <= 0.5 / fps + 2e-3
    assert read.seconds.max() < 3.0


@pytest.mark.parametrize(("codec", "suffix"), [("libsvtav1", "mp4"), ("libvpx-vp9", "webm"), ("mpeg4", "avi")])
def test_other_codecs_are_read(codec: str, suffix: str, tmp_path: Path) -> None:
    frames = soft_pictures(30)
    path = encode(tmp_path / f"a.{suffix}", codec, frames)
    read = read_frames(path, fps=25.0, start_seconds=0.4, end_seconds=0.8)
    assert read.seconds == pytest.approx(np.arange(10, 20) / 25, abs=2e-3)
    assert psnr(read.pixels, np.stack(frames[10:20])) > 24
    assert probe(path).num_frames == 30


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_rotation_is_applied(codec: str, tmp_path: Path) -> None:
    frames = soft_pictures(5)
    path = encode(tmp_path / "a.mp4", codec, frames, rotation=90)
    read = read_frames(path, fps=25.0)
    assert psnr(read.pixels[2], np.rot90(frames[2])) > 24
    assert read_frames(path, fps=25.0, short_side_pixels=48).pixels.shape == (5, 64, 48, 3)
    assert (probe(path).width, probe(path).height) == (96, 128)


def test_wrong_frames_leave_no_file(tmp_path: Path) -> None:
    even, odd = np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)
    for frames in ([], [odd], [even, odd], [even.astype(np.float32)], [even[..., 0]]):
        with pytest.raises(ValueError, match=r"a\.mp4: got"):
            write_video(tmp_path / "a.mp4", frames, 25.0)
    assert not list(tmp_path.iterdir())


def test_spans_without_pictures_are_errors(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", soft_pictures(10), 25.0)
    with pytest.raises(ValueError, match="no picture from 1 s"):
        read_frames(tmp_path / "a.mp4", fps=25.0, start_seconds=1.0)
    assert read_sound(tmp_path / "a.mp4") is None
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(10_000))
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_frames(tmp_path / "noise.mp4", fps=25.0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a", "ogg", "mp3"])
def test_sound_keeps_its_place_in_every_format(suffix: str, tmp_path: Path) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "m4a": "aac", "ogg": "libopus", "mp3": "libmp3lame"}[suffix]
    samples = np.zeros(2 * 48000, np.float32)
    samples[72000] = 0.9
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        for part in av.AudioResampler(format=stream.format, layout="stereo", rate=48000).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    whole = read_sound(path)
    assert abs(np.abs(whole.samples).argmax() / 16000 - 1.5) < 2e-3
    assert len(whole.samples) / 16000 == pytest.approx(2.0, abs=0.06)
    part = read_sound(path, start_seconds=1.2, end_seconds=2.5)
    assert len(part.samples) == 1.3 * 16000
    assert abs(np.abs(part.samples).argmax() / 16000 - 0.3) < 2e-3


@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media is absent")
def test_real_clips_are_read() -> None:
    hevc = probe(MEDIA / "talk" / "latentsync_1.mp4")
    assert (hevc.video_codec, hevc.width, hevc.height, hevc.audio_sample_rate) == ("hevc", 1080, 1920, 44100)
    read = read_frames(MEDIA / "talk" / "latentsync_1.mp4", fps=25.0, short_side_pixels=96, end_seconds=1.0)
    assert read.pixels.shape == (25, 170, 96, 3)
    # Cut without re-encoding: its pictures begin at 8.33 s.
    with pytest.raises(ValueError, match=r"they last from 8\.33"):
        read_frames(MEDIA / "talk" / "moore_2.mp4", fps=25.0, end_seconds=2.0)
