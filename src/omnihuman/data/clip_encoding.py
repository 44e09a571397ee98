"""What happens to one clip in a guarded worker: decoded once, encoded at each of its sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from omnihuman.batch import KEYPOINT_SETS, Frames
from omnihuman.config.schema.encode import Encode
from omnihuman.data.manifest import ClipFile
from omnihuman.data.shards import EncodedClip, Pictures
from omnihuman.data.sidecar import fit_keypoints, read_keypoints
from omnihuman.data.speech_features import speech_features, to_int16
from omnihuman.encoders import factory
from omnihuman.encoders.factory import Choice
from omnihuman.encoders.pose_estimator import PoseEstimator, WholeBodyEstimator, pinned_files
from omnihuman.encoders.sizes import EncodedSize
from omnihuman.encoders.speech import SAMPLE_RATE, SpeechEncoder
from omnihuman.encoders.text import TextEncoder
from omnihuman.encoders.video_codec import VideoCodec
from omnihuman.errors import UserError
from omnihuman.media.picture import resize_picture
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import worker_slot

REFERENCES_PER_CLIP = 3


@dataclass(frozen=True)
class Job(ClipFile):
    """One clip to encode."""

    sizes: list[EncodedSize]  # from the largest
    caption: str


@dataclass(frozen=True)
class EncodedSizes:
    """A clip at all its sizes."""

    clip: EncodedClip
    smaller: list[Pictures]


def encoders_of(config: Encode, device: str = "cpu") -> tuple[VideoCodec, SpeechEncoder, TextEncoder]:
    """Built once in a process; a worker loads weights with its first clip, within that clip's limits."""
    tiles = (config.video_tile_pixels, config.video_tile_stride_pixels) if config.video_tiling else (0, 0)
    return (
        factory.video_codec(Choice(config.video_codec, config.video_weights), *tiles, device),
        factory.speech_encoder(Choice(config.speech_encoder, config.speech_weights), device),
        factory.text_encoder(Choice(config.text_encoder, config.text_weights), config.max_text_tokens, device),
    )


def encoders_here(config: Encode, devices: Sequence[str]) -> tuple[VideoCodec, SpeechEncoder, TextEncoder]:
    """Those of this worker, on its device."""
    return encoders_of(config, _device(devices))


def encode_clip(config: Encode, devices: Sequence[str], job: Job) -> EncodedSizes:
    """Decodes a clip once, at its largest size, and encodes it at each; runs inside a guarded worker.

    Args:
        devices: over which the workers spread.
    """
    import torch

    torch.set_num_threads(1)
    codec, speech, text = encoders_here(config, devices)
    largest, *smaller = job.sizes
    frames = read_frames(
        job.path,
        fps=config.fps,
        size=(largest.width, largest.height),
        start_seconds=job.start_seconds,
        end_seconds=job.end_seconds,
    )
    num_frames = len(frames.pixels)
    starts = window_starts(num_frames, config)
    references = np.linspace(0, num_frames - 1, REFERENCES_PER_CLIP).round().astype(np.int32)
    of_size = partial(
        _pictures,
        codec,
        _device(devices),
        frames.pixels,
        starts=starts,
        references=references,
        length=config.num_frames,
    )
    pictures = of_size(size=largest)
    sound = read_sound(job.path, SAMPLE_RATE, job.start_seconds, job.end_seconds)
    clip = EncodedClip(
        latents=pictures.latents,
        starts=np.asarray(starts, dtype=np.int32),
        references=pictures.references,
        reference_frames=references,
        speech=speech_features(speech, sound, num_frames, config.fps)
        if config.store_speech
        else np.zeros((0, speech.num_layers, speech.width), np.float16),
        sound=to_int16(sound),
        keypoints=_keypoints_at(config, job.keypoints_path, frames),
        text=text.encode(job.caption).astype(np.float16),
    )
    return EncodedSizes(clip, [of_size(size=size) for size in smaller])


def _device(devices: Sequence[str]) -> str:
    return devices[worker_slot() % len(devices)]


def _pictures(
    codec: VideoCodec,
    device: str,
    pixels: np.ndarray,
    size: EncodedSize,
    starts: list[int],
    references: np.ndarray,
    length: int,
) -> Pictures:
    """Windows of `length` frames and single pictures out of frames uint8 [F, H, W, 3], at a size up to theirs."""
    import torch

    if pixels.shape[1:3] != (size.height, size.width):
        pixels = np.stack([resize_picture(frame, size.width, size.height) for frame in pixels])
    video = torch.from_numpy(pixels).permute(3, 0, 1, 2).float() / 127.5 - 1.0
    windows = torch.stack([video[:, start : start + length] for start in starts])
    single = video[:, references].transpose(0, 1)[:, :, None]
    latents, pictures = (codec.encode(part.to(device)).half().cpu().numpy() for part in (windows, single))
    return Pictures(size.area_pixels, latents, pictures[:, :, 0])


def window_starts(num_frames: int, config: Encode) -> list[int]:
    """Starts of `windows_per_clip` windows, spread over the clip; fewer where they would coincide."""
    last = num_frames - config.num_frames
    if last < 0:
        raise UserError(f"{num_frames} frames at {config.fps:g} fps are fewer than one window of {config.num_frames}")
    return sorted(set(np.linspace(0, last, config.windows_per_clip).round().astype(int).tolist()))


def _keypoints_at(config: Encode, path: Path | None, frames: Frames) -> np.ndarray:
    """float32 [F, K, 3] at the frames' times: the declared pose nearest in time, else one that is found, else zeros."""
    count = len(KEYPOINT_SETS[config.keypoints])
    if path is not None:
        declared = read_keypoints(path)
        nearest = np.abs(declared.seconds[None] - frames.seconds[:, None]).argmin(axis=1)
        return fit_keypoints(declared.points[nearest], count)
    if config.pose_weights:
        estimator = _pose_estimator(config.pose_weights, config.pose_sha256)
        return fit_keypoints(estimator.estimate(frames.pixels), count)
    return np.zeros((len(frames.seconds), count, 3), np.float32)


@cache
def _pose_estimator(folder: str, sha256: str) -> PoseEstimator:
    detector, pose = pinned_files("encode.pose_weights", Path(folder), sha256).values()
    return WholeBodyEstimator(detector, pose)
