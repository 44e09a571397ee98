"""Decoding pictures at model time."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import decord
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from omnihuman.batch import Frames
from omnihuman.media.seeking import pictures_from

TIE_SECONDS = 1e-3
"""decord gives times in float32; times closer than this count as equal, and the earlier frame wins."""
MAX_RECOVERED_FRAMES = 1
"""decord silently repeats a frame that it cannot decode; more of them than this is an error."""


@dataclass(frozen=True)
class _Picture:
    """What decides the size and the zero of time, from the first decoded frame."""

    width: int  # as shown, rotation applied
    height: int
    origin_seconds: float


def origin_seconds(container: InputContainer) -> float:
    """The time stamp that counts as the start of a file, shared by pictures and sound.

    MPEG-TS and cut files start late, and so count from their first stamp. A negative stamp is the priming of a sound
    codec and moves nothing.
    """
    return max(0.0, (container.start_time or 0) / av.time_base)


def read_frames(
    path: Path,
    *,
    fps: float,
    size: tuple[int, int] | None = None,
    short_side_pixels: int | None = None,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
) -> Frames:
    """Decodes the frames whose presentation times are nearest to start + i / fps, up to but without `end_seconds`.

    Call it inside `media.worker.run_guarded` for every file that the project did not write itself: decord may spin or
    crash on hostile input, and only another process can stop it. Rotation metadata is applied.

    Args:
        size: width and height to decode at; by default the file's own.
        short_side_pixels: decode at this shorter side with the aspect kept (the longer side becomes even).
        end_seconds: by default, and at most, the end of the last frame.

    Returns:
        Frames with the presentation times of the pictures taken, not the grid's.

    Raises:
        ValueError: the file cannot be decoded, or no picture lies in the span.
    """
    path = Path(path).absolute()
    try:
        picture = _first_picture(path)
        size = size or _decode_size(picture, short_side_pixels)
        try:
            return _read_with_decord(path, picture, size, fps, start_seconds, end_seconds)
        except decord.DECORDLimitReachedError as error:
            raise ValueError("cannot be decoded: its data are damaged") from error
        except decord.DECORDError:
            # decord's FFmpeg is of 2019 and lacks AV1, among others; and some widths, such as 48, break its copying.
            return _read_with_pyav(path, picture, size, fps, start_seconds, end_seconds)
    except FFmpegError as error:
        raise ValueError(f"cannot be decoded: {error.strerror}") from error


def stream_frames(path: Path, short_side_pixels: int) -> Iterator[tuple[float, float, np.ndarray]]:
    """Decodes every picture in order, in constant memory; the caveats of `read_frames` hold.

    Yields:
        Presentation time and length in seconds, and uint8 [H, W, 3].

    Raises:
        ValueError: the file cannot be decoded.
    """
    path = Path(path).absolute()
    try:
        picture = _first_picture(path)
        size = _decode_size(picture, short_side_pixels)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if frame.time is not None and frame.time_base is not None:
                    length = float(frame.duration * frame.time_base)
                    yield frame.time - picture.origin_seconds, length, _to_rgb(frame, size)
    except FFmpegError as error:
        raise ValueError(f"cannot be decoded: {error.strerror}") from error


def _first_picture(path: Path) -> _Picture:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("has no video track")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frame = next(container.decode(stream), None)
        if frame is None:
            raise ValueError("has no picture that can be decoded")
        width, height = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
        return _Picture(width, height, origin_seconds(container))


def _decode_size(picture: _Picture, short_side_pixels: int | None) -> tuple[int, int]:
    if short_side_pixels is None:
        return picture.width, picture.height
    scale = short_side_pixels / min(picture.width, picture.height)
    if picture.width <= picture.height:
        return short_side_pixels, 2 * max(1, round(picture.height * scale / 2))
    return 2 * max(1, round(picture.width * scale / 2)), short_side_pixels


def _read_with_decord(
    path: Path,
    picture: _Picture,
    size: tuple[int, int],
    fps: float,
    start_seconds: float,
    end_seconds: float | None,
) -> Frames:
    # The default of 10240 retries at a broken end takes minutes.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "128")
    reader = decord.VideoReader(
        str(path), decord.cpu(0), width=size[0], height=size[1], num_threads=1, fault_tol=MAX_RECOVERED_FRAMES
    )
    spans = reader.get_frame_timestamp(range(len(reader))).astype(np.float64) - picture.origin_seconds
    grid = _grid(fps, start_seconds, end_seconds, (float(spans[0, 0]), float(spans.max())))
    indices = _nearest(spans[:, 0], grid, end_seconds)
    # They ascend: backwards decord decodes anew from the key frame for each picture, 17 s instead of 0.6 s for 60
    # pictures of HEVC at 1080 x 1920 with a key frame in ten seconds.
    pixels = reader.get_batch(indices).asnumpy()
    # Without the seek decord decodes ahead until memory ends; the reader is dropped with this function's frame.
    reader.seek(0)
    return Frames(pixels, spans[indices, 0])


def _grid(fps: float, start_seconds: float, end_seconds: float | None, file_span: tuple[float, float]) -> np.ndarray:
    """Times in seconds, float64 [F]. The pictures of a file span a part of its time only, where it was cut."""
    first, last = file_span
    end = last if end_seconds is None else min(end_seconds, last)
    num_frames = int(np.ceil((end - start_seconds - TIE_SECONDS) * fps))
    if num_frames < 1 or end <= first:
        raise ValueError(f"no picture from {start_seconds:g} s to {end:g} s; they last from {first:g} s to {last:g} s")
    return start_seconds + np.arange(num_frames) / fps


def _nearest(seconds: np.ndarray, grid: np.ndarray, end_seconds: float | None) -> np.ndarray:
    """Indices of the nearest pictures, but of none that begins outside the span: it may belong to the next shot."""
    middles = (seconds[1:] + seconds[:-1]) / 2
    end = np.inf if end_seconds is None else end_seconds
    first, stop = np.searchsorted(seconds, [grid[0] - TIE_SECONDS, end - TIE_SECONDS])
    last = max(stop - 1, 0)
    return np.clip(np.searchsorted(middles, grid - TIE_SECONDS), min(first, last), last)


def _read_with_pyav(
    path: Path,
    picture: _Picture,
    size: tuple[int, int],
    fps: float,
    start_seconds: float,
    end_seconds: float | None,
) -> Frames:
    """Two passes: time stamps from the packets, then the pictures that were picked."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if not packet.is_discard]
        stamps = [(packet.pts, packet.duration or 0) for packet in packets if packet.pts is not None]
        spans = np.array(sorted(stamps), np.float64) * float(stream.time_base or 0)  # start and length, [F, 2]
    seconds = spans[:, 0] - picture.origin_seconds
    grid = _grid(fps, start_seconds, end_seconds, (float(seconds[0]), float((seconds + spans[:, 1]).max())))
    indices = _nearest(seconds, grid, end_seconds)
    wanted = seconds[np.unique(indices)]
    pictures = list(_pictures_at(path, wanted, picture, size))
    if len(pictures) < len(wanted):
        raise ValueError(f"only {len(pictures)} of {len(wanted)} pictures can be decoded")
    return Frames(np.stack(pictures)[np.searchsorted(wanted, seconds[indices])], seconds[indices])


def _pictures_at(path: Path, wanted: np.ndarray, picture: _Picture, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Decodes forward from the key frame before the first wanted time, yielding uint8 [H, W, 3]."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        remaining = iter(wanted)
        target = next(remaining, None)
        for frame in pictures_from(container, stream, float(wanted[0]) + picture.origin_seconds):
            if target is None:
                return
            if frame.time is not None and frame.time - picture.origin_seconds >= target - TIE_SECONDS:
                yield _to_rgb(frame, size)
                target = next(remaining, None)


def _to_rgb(frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
    width, height = size[::-1] if frame.rotation % 180 else size
    pixels = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    return np.rot90(pixels, k=frame.rotation // 90)
