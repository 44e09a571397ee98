"""Reading sound in step with the pictures."""

from collections.abc import Iterator
from math import gcd
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from scipy.signal import resample_poly

from omnihuman.batch import Sound
from omnihuman.media.video import origin_seconds

MARGIN_SECONDS = 0.2
"""Decoded and thrown away around the span: codecs overlap their frames, and the resampler needs neighbours."""
SOUND_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,w64,mp3,flac,aac,aiff,caf,amr"
"""Playlists are kept out, because they make FFmpeg open other files."""
GAP_SECONDS = 0.02
"""Time stamps of Matroska are rounded to 1 ms; only a larger jump is a gap or an overlap."""


def read_sound(
    path: Path, sample_rate: int = 16000, start_seconds: float = 0.0, end_seconds: float | None = None
) -> Sound | None:
    """Decodes one span of a sound or video file to one channel, the mean of all.

    The first sample lies at `start_seconds` of the same clock as `media.video.read_frames`; where the track starts
    late, has gaps or ends early, there is silence. For files that the project did not write itself call it inside
    `media.worker.run_guarded`.

    Args:
        end_seconds: by default the end of the sound track.

    Returns:
        The sound, or None where the file has no sound track.

    Raises:
        ValueError: the sound cannot be decoded, or the span is empty or negative.
    """
    if start_seconds < 0 or (end_seconds is not None and end_seconds <= start_seconds):
        raise ValueError(f"no sound from {start_seconds:g} s to {end_seconds} s: the span must be positive")
    try:
        with av.open(str(Path(path).absolute())) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            first_second = max(0.0, start_seconds - MARGIN_SECONDS)
            last_second = None if end_seconds is None else end_seconds + MARGIN_SECONDS
            samples = _on_timeline(container, stream, first_second, last_second)
            rate = stream.rate
    except FFmpegError as error:
        raise ValueError(f"the sound cannot be decoded: {error.strerror}") from error
    skip = round((start_seconds - first_second) * sample_rate)
    stop = None if end_seconds is None else skip + round((end_seconds - start_seconds) * sample_rate)
    return Sound(resample(Sound(samples, rate), sample_rate).samples[skip:stop], sample_rate)


def read_whole_sound(max_seconds: float, max_rate: int, path: Path) -> Sound | None:
    """Decodes a whole track as `read_sound` does, at its own rate where that is at most `max_rate`.

    Samples are [samples], or [samples, 2] where the track has two channels or more.

    Raises:
        ValueError: the sound cannot be decoded, or its header says that it is longer than `max_seconds`.
    """
    try:
        with av.open(str(Path(path).absolute()), options={"format_whitelist": SOUND_CONTAINERS}) as container:
            if not container.streams.audio:
                return None
            if (container.duration or 0) / av.time_base > max_seconds:
                raise ValueError(f"longer than {max_seconds:g} seconds, cut it")
            stream = container.streams.audio[0]
            sound = Sound(_on_timeline(container, stream, 0.0, None, stereo=stream.channels > 1), stream.rate)
    except FFmpegError as error:
        raise ValueError(f"cannot be decoded: {error.strerror}") from error
    return resample(sound, min(sound.sample_rate, max_rate))


def to_mono(sound: Sound) -> Sound:
    """The mean of its channels."""
    return sound if sound.samples.ndim == 1 else Sound(sound.samples.mean(axis=1), sound.sample_rate)


def resample(sound: Sound, sample_rate: int) -> Sound:
    """The same sound at another rate, through a filter that keeps what would alias out."""
    if sound.sample_rate == sample_rate or not len(sound.samples):
        return Sound(sound.samples, sample_rate)
    divisor = gcd(sound.sample_rate, sample_rate)
    num_samples = round(len(sound.samples) * sample_rate / sound.sample_rate)
    samples = resample_poly(sound.samples, sample_rate // divisor, sound.sample_rate // divisor)
    return Sound(samples[:num_samples].astype(np.float32), sample_rate)


def _on_timeline(
    container: InputContainer,
    stream: AudioStream,
    start_seconds: float,
    end_seconds: float | None,
    *,
    stereo: bool = False,
) -> np.ndarray:
    """float32 [samples], or [samples, 2], at the track's own rate, sample 0 at `start_seconds`."""
    rate = stream.rate
    last = _track_end_seconds(container, stream) if end_seconds is None else end_seconds
    limit = None if last is None else round((last - start_seconds) * rate)
    pieces: list[np.ndarray] = []
    filled = 0
    shape = (2,) if stereo else ()
    for seconds, samples in _blocks(container, stream, start_seconds, stereo):
        position = round((seconds - start_seconds) * rate)
        if abs(position - filled) <= GAP_SECONDS * rate and pieces:
            position = filled
        samples = samples[max(0, filled - position) :]
        if len(samples):
            silence = np.zeros((max(0, position - filled), *shape), np.float32)
            pieces += [silence, samples]
            filled += len(silence) + len(samples)
        if limit is not None and filled >= limit:
            break
    if end_seconds is not None and limit is not None and filled < limit:
        pieces.append(np.zeros((limit - filled, *shape), np.float32))
    return np.concatenate([*pieces, np.zeros((0, *shape), np.float32)])[:limit]


def _track_end_seconds(container: InputContainer, stream: AudioStream) -> float | None:
    """MP4 alone states it to the sample; the last AAC frame holds padding behind it."""
    if "mp4" not in container.format.name or stream.duration is None or stream.time_base is None:
        return None
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin_seconds(container)


def _blocks(
    container: InputContainer, stream: AudioStream, start_seconds: float, stereo: bool
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields the time of the first sample, and float32 [samples], the mean of all channels, or [samples, 2]."""
    origin = origin_seconds(container)
    if start_seconds > 0 and stream.time_base:
        container.seek(int((start_seconds + origin) / float(stream.time_base)), stream=stream)
    # Among floats FFmpeg adds up more channels than two without making room for their sum; among integers it does.
    converter = av.AudioResampler(*(("s32p", "stereo") if stereo else ("fltp", None)))
    expected = origin
    for frame in container.decode(stream):
        seconds = expected if frame.time is None else frame.time
        for part in converter.resample(frame):
            samples = part.to_ndarray()
            yield seconds - origin, _as_floats(samples.T) if stereo else samples.mean(axis=0, dtype=np.float32)
        expected = seconds + frame.samples / stream.rate


def _as_floats(samples: np.ndarray) -> np.ndarray:
    """int32 to float32 in -1..1."""
    return samples.astype(np.float32) / np.float32(2**31)
