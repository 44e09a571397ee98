"""Damaged and odd video files, made anew from a seed: what a folder from the world holds."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUM_FRAMES = 25


def encode(
    path: Path,
    seed: int,
    codec: str = "libx264",
    *,
    size: tuple[int, int] = (96, 64),
    num_frames: int = NUM_FRAMES,
    seconds: Callable[[int], float] = lambda index: index / 25,
    num_sounds: int = 1,
    metadata: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
) -> Path:
    """A second of moving noise with a tone, one frame after the other at the given times."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 255, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, pixel_format
        video.codec_context.time_base = Fraction(1, 1000)
        sounds = [
            container.add_stream("aac" if path.suffix != ".webm" else "libopus", rate=48000) for _ in range(num_sounds)
        ]
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * index, axis=1), format="rgb24")
            frame.pts, frame.time_base = round(1000 * seconds(index)), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for sound in sounds:
            tone = (0.1 * np.sin(np.arange(48000) * 0.05)).astype(np.float32)[None]
            for start in range(0, tone.shape[1], 960):
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 960]), "fltp", "mono")
                frame.sample_rate, frame.pts = 48000, start
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def _cut(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: int(random.integers(1, len(data)))]


def _flip(data: bytearray, random: np.random.Generator) -> bytearray:
    for place in random.integers(0, len(data), int(random.integers(1, 200))):
        data[place] ^= 1 << int(random.integers(8))
    return data


def _flip_header(data: bytearray, random: np.random.Generator) -> bytearray:
    data[:400] = _flip(data[:400], random)
    return data


def _other_header(data: bytearray, random: np.random.Generator) -> bytearray:
    data[:16] = random.choice(
        [b"RIFF\0\0\0\0AVI LIST", b"\x1a\x45\xdf\xa3" * 4, b"\0\0\0\x18ftypqt  \0\0\0\0", bytes(16)]
    )
    return data


def _zeros(data: bytearray, random: np.random.Generator) -> bytearray:
    start = int(random.integers(len(data)))
    data[start : start + 2000] = bytes(len(data[start : start + 2000]))
    return data


def _noise(data: bytearray, random: np.random.Generator) -> bytearray:
    return bytearray(random.bytes(len(data)))


def _huge_sizes(data: bytearray, random: np.random.Generator) -> bytearray:
    """Every box says that it is as large as a 32-bit number can say."""
    for name in (b"stts", b"stsz", b"stco", b"stsc", b"ctts"):
        if (place := data.find(name)) > 0:
            data[place + 8 : place + 16] = b"\x7f\xff\xff\xff" * 2
    return data


DAMAGES = (_cut, _flip, _flip_header, _other_header, _zeros, _noise, _huge_sizes)
CONTAINERS = {
    ".mp4": "libx264",
    ".mov": "prores_ks",
    ".mkv": "libx265",
    ".webm": "libvpx-vp9",
    ".avi": "mpeg4",
    ".m2ts": "libx264",
}


def _pixel_format(codec: str) -> str:
    return "yuv422p10le" if codec == "prores_ks" else "yuv420p"


def _bomb(path: Path, seed: int) -> Path:
    """Some kilobytes whose header says that a picture is 16384 x 16384."""
    data = bytearray(encode(path, seed, size=(64, 64), num_frames=5).read_bytes())
    entry, track = data.find(b"avc1"), data.find(b"tkhd")
    data[entry + 28 : entry + 32] = b"\x40\0" * 2
    data[track + 80 : track + 88] = b"\x40\0\0\0" * 2
    path.write_bytes(data)
    return path


def _uneven(index: int) -> float:
    return index / 25 + 0.03 * (index % 3 == 1) + 0.5 * (index > 12)


ODD: dict[str, Callable[[Path, int], Path]] = {
    "one frame.mp4": lambda path, seed: encode(path, seed, num_frames=1),
    "no frame.mp4": lambda path, seed: encode(path, seed, num_frames=0),
    "wide.mkv": lambda path, seed: encode(path, seed, "ffv1", size=(16384, 2), num_frames=3),
    "large.mkv": lambda path, seed: encode(path, seed, "ffv1", size=(16384, 8192), num_frames=2),
    "uneven.mp4": lambda path, seed: encode(path, seed, seconds=_uneven),
    "silent.mp4": lambda path, seed: encode(path, seed, num_sounds=0),
    "eight sounds.mkv": lambda path, seed: encode(path, seed, num_sounds=8),
    "wordy.mkv": lambda path, seed: encode(path, seed, metadata={f"tag{i}": "x" * 2000 for i in range(5000)}),
    "av1.mp4": lambda path, seed: encode(path, seed, "libsvtav1"),
    "vp9.webm": lambda path, seed: encode(path, seed, "libvpx-vp9"),
    "hevc.mp4": lambda path, seed: encode(path, seed, "libx265"),
    "prores.mov": lambda path, seed: encode(path, seed, "prores_ks", pixel_format="yuv422p10le"),
    "mpeg4.avi": lambda path, seed: encode(path, seed, "mpeg4"),
    "stream.m2ts": lambda path, seed: encode(path, seed),
    "bomb.mp4": _bomb,
}
WHOLE_NAMES = {
    "uneven.mp4", "silent.mp4", "eight sounds.mkv", "wordy.mkv", "av1.mp4", "vp9.webm", "hevc.mp4", "prores.mov",
    "mpeg4.avi", "stream.m2ts",
}  # fmt: skip
"""Of which a row of status ok is expected."""


def make(folder: Path, number: int) -> Path:
    """The file of a number: the odd ones first, then ever other damages of ever other containers."""
    names = list(ODD)
    if number < len(names):
        return ODD[names[number]](folder / names[number], number)
    suffix, codec = list(CONTAINERS.items())[number % len(CONTAINERS)]
    damage = DAMAGES[number // len(CONTAINERS) % len(DAMAGES)]
    path = folder / f"{damage.__name__.strip('_')} {number}{suffix}"
    encode(path, number, codec, pixel_format=_pixel_format(codec))
    path.write_bytes(damage(bytearray(path.read_bytes()), np.random.default_rng(number)))
    return path
