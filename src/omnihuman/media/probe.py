"""What a video file is, and whether it is whole."""

from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from omnihuman.media.seeking import pictures_from
from omnihuman.media.video import origin_seconds

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
"""Playlists are kept out, because they make FFmpeg open other files; so are pictures and texts."""
MISSING_SECONDS = 0.5
"""A file that ends this much before its header says is truncated."""
EDGE_SECONDS = 1.0


@dataclass(frozen=True)
class VideoProbe:
    """Header and packets of a video file."""

    duration_seconds: float  # to the end of the last picture
    fps: float  # mean rate; 0 where the file does not tell
    num_frames: int
    width: int  # as shown, rotation applied
    height: int
    video_codec: str
    audio_codec: str  # empty without sound
    audio_sample_rate: int  # 0 without sound


def probe(path: Path) -> VideoProbe:
    """Reads the header and all packets, and decodes the first and the last second of the pictures.

    Call it inside `media.worker.run_guarded`, as `media.video.read_frames`.

    Raises:
        ValueError: the file is empty, no video, truncated or damaged at an end.
    """
    path = Path(path).absolute()
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    try:
        with av.open(str(path), options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.video:
                raise ValueError("has no video track")
            return _probe(container, container.streams.video[0])
    except FFmpegError as error:
        raise ValueError(f"is no whole video: {error.strerror}") from error


def _probe(container: InputContainer, stream: VideoStream) -> VideoProbe:
    origin = origin_seconds(container)
    num_frames, duration = _measure(container, stream, origin)
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    stream.codec_context.thread_count = 1
    width, height = _decode_from(container, stream, origin, EDGE_SECONDS)
    _decode_from(container, stream, origin + max(0.0, duration - EDGE_SECONDS), EDGE_SECONDS + 1)
    sound = container.streams.audio[0].codec_context if container.streams.audio else None
    return VideoProbe(
        duration_seconds=duration,
        fps=fps,
        num_frames=num_frames,
        width=width,
        height=height,
        video_codec=stream.codec_context.name,
        audio_codec=sound.name if sound else "",
        audio_sample_rate=sound.sample_rate if sound else 0,
    )


def _measure(container: InputContainer, stream: VideoStream, origin: float) -> tuple[int, float]:
    """Number of pictures and the end of the last in seconds, from all packets."""
    num_frames, end, end_of_all = 0, 0.0, 0.0
    frame_seconds = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    for packet in container.demux():
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None or packet.is_discard:
            continue
        if packet.is_corrupt:
            raise ValueError("is truncated or damaged: a packet is not whole")
        base = float(packet.time_base)
        is_picture = packet.stream is stream
        length = packet.duration * base if packet.duration else frame_seconds * is_picture
        packet_end = stamp * base + length - origin
        end_of_all = max(end_of_all, packet_end)
        if is_picture:
            num_frames, end = num_frames + 1, max(end, packet_end)
    declared = (container.duration or 0) / av.time_base
    if end_of_all < declared - MISSING_SECONDS:
        raise ValueError(f"is truncated: ends at {end_of_all:.1f} s of {declared:.1f} s")
    if num_frames == 0:
        raise ValueError("has no picture")
    return num_frames, end


def _decode_from(container: InputContainer, stream: VideoStream, start: float, length: float) -> tuple[int, int]:
    """Decodes pictures from a time stamp in seconds on and returns width and height as shown."""
    size = None
    for frame in pictures_from(container, stream, start):
        if frame.is_corrupt:
            raise ValueError(f"is damaged: the picture at {frame.time or 0:.1f} s is not whole")
        size = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
        if frame.time is not None and frame.time > start + length:
            break
    if size is None:
        raise ValueError("is truncated or damaged: no picture can be decoded at one of its ends")
    return size
