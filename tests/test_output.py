"""From frames to a file: rate, size, codec, sound, label, and what stops the writing."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from tests import written
from tests.batches import PARAMS
from tests.written import tone

from omnihuman.config.checks import check
from omnihuman.config.schema.evaluate import Render
from omnihuman.errors import UserError
from omnihuman.inference.output import OutputError, retimed
from omnihuman.inference.visible_label import FONT_VARIABLE, VisibleLabel
from omnihuman.media.probe import probe
from omnihuman.media.video import read_frames

PLAIN = Render(upscale=1, content_credentials=False)


@pytest.mark.parametrize("fps", [0.0, 12.5, 24.0, 30000 / 1001, 30.0, 60.0])
@pytest.mark.parametrize("seconds", [0.03, 0.99, 1.51])
def test_any_rate_lasts_as_long_as_the_sound(tmp_path: Path, fps: float, seconds: float) -> None:
    video = written.write(tmp_path / "a.mp4", replace(PLAIN, fps=fps), tone(seconds))
    found = probe(tmp_path / "a.mp4")
    assert found.num_frames == video.num_frames and video.fps == pytest.approx(fps or 25.0)
    assert abs(found.num_frames / video.fps - seconds) <= 1 / video.fps
    assert video.sound_seconds == pytest.approx(seconds, abs=1e-4)


@pytest.mark.parametrize("rate", [Fraction(25, 2), Fraction(24), Fraction(30000, 1001), Fraction(60)])
def test_each_new_moment_shows_the_nearest_frame(rate: Fraction) -> None:
    number = round(2 * rate)
    shown = [int(frame[0]) for frame in retimed((np.array([i]) for i in range(50)), Fraction(25), rate, number)]
    assert len(shown) == number and shown == sorted(shown)
    late = [abs(Fraction(index, 25) - moment / rate) for moment, index in enumerate(shown) if moment / rate <= 49 / 25]
    assert max(late) <= Fraction(1, 50)


def test_the_last_frame_stays_and_every_frame_is_asked_for() -> None:
    asked: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for index in range(5):
            asked.append(index)
            yield np.array([index])

    longer = [int(frame[0]) for frame in retimed(frames(), Fraction(25), Fraction(25), 8)]
    assert longer == [0, 1, 2, 3, 4, 4, 4, 4]
    assert len(list(retimed(frames(), Fraction(25), Fraction(25), 2))) == 2 and asked == 2 * [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("codec", "tag"), [("h264", "avc1"), ("hevc", "hvc1")])
def test_both_codecs_start_fast_and_play(tmp_path: Path, codec: str, tag: str) -> None:
    path = tmp_path / "a.mp4"
    written.write(path, replace(PLAIN, codec=codec), tone(1.0))
    assert (probe(path).num_frames, probe(path).width) == (25, written.WIDTH)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.codec_tag) == (codec, tag)
        assert stream.codec_context.pix_fmt == "yuv420p"
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")
    wanted = np.stack([(frame * 255).round() for frame in written.pictures(25)])
    assert np.abs(read_frames(path, fps=25.0).pixels - wanted).mean() < 4


def test_quality_costs_bytes(tmp_path: Path) -> None:
    for codec in ("h264", "hevc"):
        for crf in (5, 40):
            noise(tmp_path / f"{codec} {crf}.mp4", 10, codec=codec, crf=crf)
        good, poor = ((tmp_path / f"{codec} {crf}.mp4").stat().st_size for crf in (5, 40))
        assert good > 3 * poor


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (48000, 1), (22050, 1), (16000, 1)])
def test_the_sound_keeps_its_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    written.write(tmp_path / "a.mp4", PLAIN, tone(1.0, rate, channels))
    with av.open(str(tmp_path / "a.mp4")) as container:
        track = container.streams.audio[0]
        assert (track.rate, track.channels) == (rate, channels)
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    if channels == 2:
        assert np.abs(heard[0] + heard[1]).max() < 0.1 < np.abs(heard[0]).max(), "left and right are opposite"


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"upscale": 3}, (192, 144)),
        ({"width": 320}, (320, 240)),
        ({"height": 100}, (134, 100)),
        ({"width": 90}, (90, 68)),
    ],
)
def test_the_file_has_the_asked_size(tmp_path: Path, config: dict[str, int], size: tuple[int, int]) -> None:
    video = written.write(tmp_path / "a.mp4", replace(PLAIN, **config), num_frames=3)
    found = probe(tmp_path / "a.mp4")
    assert (found.width, found.height) == (video.width, video.height) == size


def test_another_aspect_cuts_off_and_never_distorts(tmp_path: Path) -> None:
    written.write(tmp_path / "a.mp4", replace(PLAIN, width=96, height=96, crf=4), num_frames=1)
    shown = read_frames(tmp_path / "a.mp4", fps=25.0).pixels[0, 48, :, 0].astype(float)
    source = next(written.pictures(1))[0, 8:56, 0] * 255  # 48 of 64 columns, the middle ones
    assert np.abs(shown[1::2] - source).max() < 6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"codec": "av1"}, "render.codec: unknown 'av1', expected one of h264, hevc"),
        ({"crf": 52}, "render.crf is 52"),
        ({"fps": -1.0}, "render.fps is -1.0"),
        ({"fps": 1000.0}, "render.fps is 1000"),
        ({"width": 33}, "render.width is 33: set an even number"),
        ({"height": -2}, "render.height is -2"),
        ({"label": "two\nlines"}, "render.label is 'two\\nlines'"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        check(replace(PARAMS, render=Render(**wrong)))  # pyright: ignore[reportArgumentType]
    assert said in str(caught.value)


@pytest.mark.parametrize("height", [256, 1080])
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_label_is_readable_on_dark_and_light(height: int, shade: int) -> None:
    frame = np.full((height, 2 * height, 3), shade, np.uint8)
    labelled = VisibleLabel("made by AI – создано ИИ", 2 * height, height).over(frame)
    changed = np.argwhere((labelled != frame).any(axis=-1))
    assert changed[:, 0].min() > 0.9 * height and changed[:, 1].max() < height, "it stays in its corner"
    corner = labelled[changed[:, 0].min() :, : changed[:, 1].max(), 0]
    assert corner.max() > 240 and np.median(corner) < 90, "white on dark"
    assert (frame == shade).all()


def test_a_label_is_drawn_into_the_file(tmp_path: Path) -> None:
    config = replace(PLAIN, upscale=4)
    written.write(tmp_path / "without.mp4", config, num_frames=2)
    written.write(tmp_path / "with.mp4", replace(config, label="made by AI"), num_frames=2)
    one, other = (read_frames(tmp_path / f"{name}.mp4", fps=25.0).pixels.astype(int) for name in ("without", "with"))
    differs = np.abs(one - other).max(axis=(0, 3))
    assert differs[-12:, :60].max() > 60 and differs[:150].max() < 30


def test_what_no_font_can_write_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"DejaVuSans\.ttf has no '人工'; set {FONT_VARIABLE}"):
        VisibleLabel("AI 人工", 512, 512)
    with pytest.raises(UserError, match="too long for a picture of 64 x 64"):
        VisibleLabel("made by artificial intelligence", 64, 64)
    (tmp_path / "font.ttf").write_text("no font")
    monkeypatch.setenv(FONT_VARIABLE, str(tmp_path / "font.ttf"))
    with pytest.raises(UserError, match="cannot be read as a font"):
        VisibleLabel("AI", 512, 512)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def noise(path: Path, num_frames: int, **config: object) -> None:
    """Frames that do not compress, about 5 KB each."""
    drawn = np.random.default_rng(0).random((num_frames, written.HEIGHT, written.WIDTH, 3), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "pictures", lambda number: iter(drawn))
        written.write(path, replace(PLAIN, **config), num_frames=num_frames)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("frames", "signed"), [(400, False), (40, True)])
def test_a_full_disk_is_one_message_and_leaves_nothing(small_disk: Path, frames: int, signed: bool) -> None:
    """With few frames there is room for the video, but not for the signed one beside it."""
    with pytest.raises(OutputError, match=r"a\.mp4: .*; (free some space|name another place)"):
        noise(small_disk / "a.mp4", frames, content_credentials=signed, crf=12)
    assert [path.name for path in small_disk.iterdir()] == ["picture.png"]


def test_a_file_that_grows_too_large_is_one_message(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.mp4: File too large; files may not be as large here"):
            noise(tmp_path / "a.mp4", 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_a_forbidden_or_impossible_place_is_told_before_any_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "pictures", written.none)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    places = {"folder.mp4": "a folder has this name", "x" * 250 + ".mp4": "File name too long", "file/a.mp4": "file"}
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    for name, said in places.items():
        with pytest.raises(OutputError, match=said):
            written.write(tmp_path / name, PLAIN, picture=tmp_path / "picture.png")


def test_a_folder_of_somebody_elses_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    written.write(folder / "a.mp4", PLAIN)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        for above in (folder, *folder.parents[:-2]):
            above.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(OutputError, match=r"b\.mp4: Permission denied; name a folder that you may write into"):
            written.write(folder / "b.mp4", PLAIN, picture=folder / "picture.png")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert {path.name for path in folder.iterdir()} == {"a.mp4", "a.mp4.json", "picture.png"}


_PEAK = """
import resource, sys
from pathlib import Path
from tests import written
from omnihuman.config.schema.evaluate import Render
folder, frames = Path(sys.argv[1]), int(sys.argv[2])
config = Render(upscale=8, content_credentials=False)
written.write(folder / f"{frames}.mp4", config, written.tone(frames / 25))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", _PEAK, tmp_path, str(frames)], capture_output=True, text=True, check=True
            ).stdout
        )
        for frames in (250, 2500)
    ]
    assert peaks[1] - peaks[0] < 25, f"MiB for 10 s and 100 s of 512 x 384: {peaks}"
