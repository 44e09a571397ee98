"""What may be given to a render: pictures, sounds and sizes of every kind."""

import logging
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.tiny import ENCODERS

from omnihuman.batch import Sound
from omnihuman.encoders.text import HashedWords
from omnihuman.errors import UserError
from omnihuman.inference.inputs import TARGET_LUFS, _warn_of_cut_text
from omnihuman.inference.picture_inputs import read_fitted
from omnihuman.inference.request import InputOptions, RenderRequest
from omnihuman.media.loudness import SILENCE_LUFS, at_loudness, loudness
from omnihuman.media.picture import MAX_PIXELS, read_picture
from omnihuman.media.sound import read_whole_sound, resample, to_mono

RED = (200, 30, 20)


def square(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    """Red, with a blue left upper quarter."""
    image = Image.new("RGB", size, RED)
    image.paste((10, 20, 220), (0, 0, size[0] // 2, size[1] // 2))
    return image.convert(mode)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.avif"])
def test_every_kind_of_picture_shows_its_colours(tmp_path: Path, name: str) -> None:
    square().save(tmp_path / name, **({"quality": 95} if name.endswith(("jpg", "webp", "avif")) else {}))
    pixels = read_picture(tmp_path / name)
    assert pixels.shape == (24, 40, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels[20, 30].astype(int) - RED).max() <= 12
    assert np.abs(pixels[4, 6].astype(int) - (10, 20, 220)).max() <= 25


@pytest.mark.parametrize("mode", ["P", "L", "LA", "RGBA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    grey = np.asarray(square("L")).astype(np.uint16) * 257
    image = Image.fromarray(grey) if mode == "I;16" else square().quantize() if mode == "P" else square(mode)
    image.save(path)
    told, expected = read_picture(path)[20, 30].astype(int), np.array(RED)
    if mode in ("L", "LA", "I;16"):
        expected = np.asarray(square("L"))[20, 30]
    if mode == "1":
        assert set(np.unique(read_picture(path))) <= {0, 255}
    else:
        assert np.abs(told - expected).max() <= 8


def test_sixteen_bits_a_channel(tmp_path: Path) -> None:
    import cv2

    deep = np.asarray(square())[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png"), np.asarray(square()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_rotation_is_undone(tmp_path: Path, orientation: int) -> None:
    turns = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns[orientation](square()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.asarray(square()))


def test_transparency_lies_over_white_also_of_palettes(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (*RED, 0))
    image.paste((*RED, 255), (0, 0, 10, 20))
    image.save(tmp_path / "a.png")
    image.quantize().save(tmp_path / "palette.png")
    image.save(tmp_path / "a.webp", lossless=True)
    for name in ("a.png", "palette.png", "a.webp"):
        pixels = read_picture(tmp_path / name)
        assert (pixels[:, 12:] == 255).all() and np.abs(pixels[5, 5].astype(int) - RED).max() <= 3, name


def test_an_embedded_profile_is_applied_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    square().save(tmp_path / "srgb.png", icc_profile=lab)
    assert np.abs(read_picture(tmp_path / "srgb.png").astype(int) - np.asarray(square())).max() <= 2
    square().save(tmp_path / "damaged.png", icc_profile=b"no profile at all")
    np.testing.assert_array_equal(read_picture(tmp_path / "damaged.png"), np.asarray(square()))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_of_an_animation_the_first_picture_is_taken_and_said(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40)
    pixels = read_picture(tmp_path / name)
    assert np.abs(pixels[10, 10].astype(int) - (255, 0, 0)).max() <= 10 and "an animation" in caplog.text


def test_pictures_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    Image.new("1", (20_000, 4_000)).save(tmp_path / "large.png")
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:9000])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (tmp_path / "drawing.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n")
    said = {
        "dot.png": "1 x 1 pixels are too few", "huge.png": "below 64 megapixels", "large.png": "below 64 megapixels",
        "half.png": "cannot be read", "empty.jpg": "the file is empty", "phone.heic": "save it as JPEG",
        "drawing.png": "of no known kind", "none.png": "no such file",
    }  # fmt: skip
    for name, message in said.items():
        with pytest.raises(UserError, match=message):
            read_picture(tmp_path / name)


def test_a_jpeg_of_20000_pixels_a_side_is_decoded_smaller(tmp_path: Path) -> None:
    Image.new("L", (20_000, 5_000), 120).save(tmp_path / "panorama.jpg", quality=30)
    assert MAX_PIXELS < 20_000 * 5_000
    pixels = read_picture(tmp_path / "panorama.jpg")
    assert pixels.shape[1] == 4 * pixels.shape[0] <= 10_000 and abs(int(pixels[9, 9, 0]) - 120) <= 2


def fitted(folder: Path, size: tuple[int, int], **options: int):
    square(size=size).save(folder / "a.png")
    return read_fitted(folder / "a.png", ENCODERS, InputOptions(**options))  # pyright: ignore[reportArgumentType]


def test_sizes_follow_the_picture_or_what_is_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert fitted(tmp_path, (60, 90)).pixels.shape == (40, 24, 3)
    assert fitted(tmp_path, (60, 90), model_short_side=16).pixels.shape == (24, 16, 3)
    assert "more than the model was trained on" not in caplog.text
    assert fitted(tmp_path, (60, 90), model_width=64).pixels.shape == (96, 64, 3)
    assert "more than the model was trained on" in caplog.text and "are cut" not in caplog.text
    assert fitted(tmp_path, (60, 90), model_height=61).pixels.shape == (64, 40, 3)
    assert "its sides are multiples of 8" in caplog.text
    wide = fitted(tmp_path, (60, 90), model_width=32, model_height=16)
    assert wide.pixels.shape == (16, 32, 3) and "are cut to 60 x 30" in caplog.text
    assert (wide.part_width, wide.part_height) == (1.0, pytest.approx(1 / 3)) and wide.aspect == 2


def test_a_picture_beyond_the_trained_aspects_is_cut_and_its_keypoints_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shown = fitted(tmp_path, (240, 40))
    assert shown.pixels.shape[1] / shown.pixels.shape[0] == 2 and "are cut to 80 x 40" in caplog.text
    np.testing.assert_allclose(shown.shown(np.array([[0.5, 0.25, 1.0]])), [[0.5, 0.25, 1.0]], atol=1e-6)
    np.testing.assert_allclose(shown.shown(np.array([[1 / 3, 0.0, 1.0]])), [[0.0, 0.0, 1.0]], atol=1e-6)
    assert "no face is seen" in caplog.text


def test_contradicting_requests_are_refused(tmp_path: Path) -> None:
    square().save(tmp_path / "a.png")
    image, out = tmp_path / "a.png", tmp_path / "out.mp4"
    request = RenderRequest(image, out, audio=image)
    cases = [
        (replace(request, options=InputOptions(model_short_side=8, model_width=8)), "either by its short side"),
        (replace(request, options=InputOptions(model_width=-8)), "below 0"),
        (replace(request, options=InputOptions(model_width=100_000)), "at most 8192"),
        (replace(request, options=InputOptions(pose_width=8)), "has two sides"),
        (replace(request, pose=image, options=InputOptions(video_sound=True)), "give --video, and no --audio"),
        (replace(request, video=image, options=InputOptions(video_sound=True)), "give --video, and no --audio"),
        (replace(request, video=image, pose=image), "leave one out"),
        (replace(request, text="half of \ud83d"), "not in UTF-8"),
    ]
    for wrong, message in cases:
        with pytest.raises(UserError, match=message):
            wrong.check()


def tone(amplitude: float = 0.1, seconds: float = 1.0, rate: int = 48_000) -> Sound:
    return Sound(
        (amplitude * np.sin(2 * np.pi * 997 * np.arange(round(seconds * rate)) / rate)).astype(np.float32), rate
    )


def test_loudness_is_that_of_the_standard() -> None:
    # BS.1770: a full-scale sine of 997 Hz on one channel reads -3.01 LUFS.
    assert loudness(tone(1.0, 3.0)) == pytest.approx(-3.01, abs=0.05)
    assert loudness(tone(0.1, 3.0, 16_000)) == pytest.approx(-23.01, abs=0.1)
    assert loudness(tone(0.1, 0.05)) == pytest.approx(-23.01, abs=0.3), "shorter than a block"
    assert loudness(Sound(np.zeros(0, np.float32), 16_000)) == -np.inf


def test_any_loudness_is_brought_to_one_and_silence_stays() -> None:
    for amplitude in (0.003, 0.1, 1.0):
        assert loudness(at_loudness(tone(amplitude, 2.0), TARGET_LUFS)[0]) == pytest.approx(TARGET_LUFS, abs=0.05)
    for amplitude in (0.0, 3e-4):
        silent = tone(amplitude)
        same, measured = at_loudness(silent, TARGET_LUFS)
        assert measured < SILENCE_LUFS and same is silent


KINDS = [
    (".wav", "pcm_s16le", 8_000, 1), (".wav", "pcm_s24le", 96_000, 2), (".wav", "pcm_f32le", 44_100, 6),
    (".mp3", "mp3", 44_100, 2), (".flac", "flac", 48_000, 2), (".m4a", "aac", 22_050, 1),
    (".ogg", "libopus", 48_000, 2),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec", "rate", "channels"), KINDS)
def test_sound_of_every_kind_keeps_rate_length_and_loudness(
    tmp_path: Path, suffix: str, codec: str, rate: int, channels: int
) -> None:
    path = tmp_path / f"a b{suffix}"
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        samples = np.tile(tone(0.2, 1.3, rate).samples, (channels, 1))
        frame = av.AudioFrame.from_ndarray(samples, "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        while (part := fifo.read(1024, partial=True)) is not None:
            resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
            for converted in resampler.resample(part):
                container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    sound = read_whole_sound(60.0, 48_000, path)
    assert sound is not None and sound.sample_rate == min(rate, 48_000)
    assert abs(len(sound.samples) / sound.sample_rate - 1.3) <= 0.05, "compressed sound comes in whole packets"
    assert sound.samples.shape[1:] == ((2,) if channels > 1 else ()), "stereo stays stereo, more becomes stereo"
    assert loudness(to_mono(sound)) == pytest.approx(loudness(tone(0.2, 1.3, 48_000)), abs=0.6)


def test_what_is_written_is_the_users_own_rate_and_the_model_hears_16_khz() -> None:
    sound = tone(0.1, 1.0, 44_100)
    heard = resample(sound, 16_000)
    assert len(heard.samples) == 16_000 and heard.sample_rate == 16_000
    np.testing.assert_allclose(heard.samples[800:-800], tone(0.1, 1.0, 16_000).samples[800:-800], atol=1e-3)


def test_a_track_that_is_too_long_or_no_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 80_000), np.int16), "s16", "mono")
        frame.sample_rate = 8_000
        container.mux(stream.encode(frame))
    with pytest.raises(ValueError, match="longer than 5 seconds"):
        read_whole_sound(5.0, 48_000, path)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match="cannot be decoded"):
        read_whole_sound(60.0, 48_000, tmp_path / "list.m3u8")


def test_a_text_that_is_too_long_says_how_much_of_it_counts(caplog: pytest.LogCaptureFixture) -> None:
    encoder = HashedWords(6)
    for text in ("word " * 20_000, "слово " * 20_000, "言葉 " * 20_000):
        caplog.clear()
        _warn_of_cut_text(text, encoder, 6)
        assert "has 20001 tokens, the model reads the first 6" in caplog.text
    caplog.clear()
    _warn_of_cut_text("ein Mann spricht", encoder, 6)
    assert not caplog.text
