"""Writing videos that play everywhere: H.264 or HEVC, yuv420p, with AAC sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from omnihuman.batch import Sound
from omnihuman.storage.files import publish

AAC_SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
MP4_SUFFIXES = (".mp4", ".mov", ".m4v")
SOUND_BLOCK = 1024
"""Samples handed to the encoder at once; the length of an AAC frame."""
CODECS = {
    "h264": ("libx264", None, {}),
    # One thread and no line about the processor keep the bytes the same everywhere. QuickTime plays HEVC as hvc1 only.
    "hevc": ("libx265", "hvc1", {"x265-params": "pools=none:frame-threads=1:info=0:log-level=error"}),
}
"""The encoder of each codec, its tag in MP4 where the default is not understood everywhere, and its own options."""


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: float,
    sound: Sound | None = None,
    crf: int = 18,
    preset: str = "veryfast",
    codec: str = "h264",
    faststart: bool = False,
) -> None:
    """Writes one video, streaming, so that long videos need no more memory than short ones.

    The bytes depend on the arguments only (one encoder thread, no dates). The sound track keeps its own length, whether
    the pictures end earlier or later; a rate that AAC lacks becomes 48 kHz. The container follows the suffix of `path`.

    Args:
        frames: uint8 [H, W, 3] each, RGB, all of one even size.
        sound: of one channel, or of two as [samples, 2].
        crf: quality on the codec's scale, from 0 (best) to 51; one of HEVC looks like one about 5 lower of H.264.
        codec: one of `CODECS`.
        faststart: put the index of an MP4 before its pictures, so that a player on the web can begin at once.

    Raises:
        ValueError: no frames, a frame of another type, an odd size or a size unlike the first one's, or a size that the
            encoder does not take.
    """
    path, iterator = Path(path), iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: got no frames; a video needs at least one")
    _check_frame(path, first, first.shape)
    height, width = first.shape[:2]
    options = {"fflags": "+bitexact"}
    if sound is not None and path.suffix in MP4_SUFFIXES:
        # The default of 1000 rounds the length of the sound up to a whole millisecond.
        options["movie_timescale"] = str(_track_rate(sound))
    if faststart and path.suffix in MP4_SUFFIXES:
        options["movflags"] = "+faststart"
    with publish(path) as temporary, av.open(str(temporary.absolute()), "w", options=options) as container:
        video = _add_video(container, width, height, fps, codec, crf, preset)
        blocks = _sound_blocks(_add_sound(container, sound), sound) if sound is not None else iter(())
        sound_seconds = 0.0
        frame, index = first, 0
        while frame is not None:
            _check_frame(path, frame, first.shape)
            container.mux(video.encode(_to_yuv(frame, index)))
            frame, index = next(iterator, None), index + 1
            while sound_seconds < index / fps and (block := next(blocks, None)) is not None:
                packets, sound_seconds = block
                container.mux(packets)
        container.mux(video.encode(None))
        for packets, _ in blocks:
            container.mux(packets)


def _check_frame(path: Path, frame: np.ndarray, shape: tuple[int, ...]) -> None:
    expected = "uint8 [H, W, 3] with even height and width, all of one size"
    right = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.shape == shape
    if not right or frame.shape[0] % 2 or frame.shape[1] % 2 or 0 in frame.shape:
        raise ValueError(f"{path}: got a frame of {frame.dtype} {list(frame.shape)}; expected {expected}")


def _add_video(
    container: OutputContainer, width: int, height: int, fps: float, codec: str, crf: int, preset: str
) -> VideoStream:
    # 1001 is the denominator of NTSC's rates (24000/1001, 30000/1001, 60000/1001).
    rate = Fraction(fps).limit_denominator(1001)
    encoder, tag, options = CODECS[codec]
    video = container.add_stream(encoder, rate=rate, options={"crf": str(crf), "preset": preset, **options})
    video.width, video.height, video.pix_fmt = width, height, "yuv420p"
    context = video.codec_context
    if tag and container.format.name == "mp4":
        context.codec_tag = tag
    context.thread_count = 1
    context.time_base = 1 / rate
    context.colorspace, context.color_primaries, context.color_trc = 1, 1, 1  # BT.709
    context.color_range = 1  # limited
    return video


def _to_yuv(frame: np.ndarray, index: int) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, threads=1)
    picture.pts = index
    return picture


def _add_sound(container: OutputContainer, sound: Sound) -> AudioStream:
    return container.add_stream("aac", rate=_track_rate(sound), layout=_layout(sound))


def _layout(sound: Sound) -> str:
    return "stereo" if sound.samples.ndim == 2 and sound.samples.shape[1] == 2 else "mono"


def _track_rate(sound: Sound) -> int:
    return sound.sample_rate if sound.sample_rate in AAC_SAMPLE_RATES else 48000


def _sound_blocks(stream: AudioStream, sound: Sound) -> Iterator[tuple[list[av.Packet[AudioStream]], float]]:
    """Yields encoded packets with the time in seconds up to which the sound has been handed over."""
    layout, num_samples = _layout(sound), len(sound.samples)
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=stream.rate)
    samples = sound.samples.reshape(num_samples, -1).T  # a view: [channels, samples]
    for start in range(0, num_samples, SOUND_BLOCK):
        part = np.ascontiguousarray(samples[:, start : start + SOUND_BLOCK], dtype=np.float32)
        block = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        block.sample_rate, block.pts = sound.sample_rate, start
        block.time_base = Fraction(1, sound.sample_rate)
        packets = [packet for part in resampler.resample(block) for packet in stream.encode(part)]
        yield packets, (start + block.samples) / sound.sample_rate
    packets = [packet for part in resampler.resample(None) for packet in stream.encode(part)]
    yield packets + stream.encode(None), num_samples / sound.sample_rate
