"""Held-out clips of the step `encode` as files: what a protocol with the layout `encoded` measures on."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import wavfile

from omnihuman.batch import Sound
from omnihuman.config.schema.protocol import EvaluationProtocol
from omnihuman.data.shards import Encoders
from omnihuman.encoders.factory import Choice, video_codec
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.encoders.video_codec import VideoCodec
from omnihuman.errors import UserError
from omnihuman.evaluation.held_out import HeldOut, held_out_windows
from omnihuman.evaluation.items import Item
from omnihuman.media.write import write_video

_CRF = 4
"""Of the real videos: nearly as the codec gives them back."""


def export_held_out(encoded: Path, protocol: EvaluationProtocol, folder: Path) -> list[Item]:
    """Writes the picture, the sound, the pose and the real video of held-out windows, through the codec.

    Raises:
        UserError: the data are missing, at another rate than the protocol's, or hold too few eligible clips.
    """
    encoders, wanted = Encoders.load(encoded / "encoders.json"), protocol.items
    if encoders.fps != protocol.clips.fps:
        raise UserError(f"{encoded}: has {encoders.fps:g} frames a second, and the protocol {protocol.clips.fps:g}")
    count = wanted.num_videos or 10**9
    windows = held_out_windows(encoded, protocol.driven_by[0], count, wanted.seed)
    if not windows or len(windows) < wanted.num_videos:
        what = f"held-out clips that are eligible for {protocol.driven_by[0]}"
        raise UserError(f"{encoded}: holds {len(windows)} {what}, and the protocol says {wanted.num_videos}")
    folder.mkdir(parents=True, exist_ok=True)
    choice = Choice(encoders.video_codec, encoders.video_weights, encoders.video_weights_sha256)
    codec = video_codec(choice, encoders.video_tile_pixels, encoders.video_tile_stride_pixels)
    return [_export(window, codec, encoders.fps, folder) for window in windows]


def _export(window: HeldOut, codec: VideoCodec, fps: float, folder: Path) -> Item:
    clip = window.clip
    frames = _decoded(codec, clip.latents[window.window])
    picture = _decoded(codec, clip.references[window.reference][:, None])[0]
    first = round(window.start / fps * SAMPLE_RATE)
    samples = clip.sound[first : first + round(len(frames) / fps * SAMPLE_RATE)]
    points = clip.keypoints[window.start : window.start + len(frames)]
    picture_path, sound_path, pose_path, video_path, of_picture = (
        folder / f"{window.clip_id}{suffix}"
        for suffix in (".png", ".wav", ".keypoints.npz", ".mp4", ".picture.keypoints.npz")
    )
    Image.fromarray(picture).save(picture_path)
    wavfile.write(sound_path, SAMPLE_RATE, samples)
    np.savez(pose_path, points=points, seconds=np.arange(len(frames)) / fps)
    np.savez(of_picture, points=clip.keypoints[clip.reference_frames[window.reference]][None], seconds=np.zeros(1))
    sound = Sound(samples.astype(np.float32) / 32768, SAMPLE_RATE) if len(samples) else None
    write_video(video_path, frames, fps, sound, crf=_CRF)
    return Item(window.clip_id, window.identity, picture_path, sound_path, pose_path, video_path, of_picture)


def _decoded(codec: VideoCodec, latents: np.ndarray) -> np.ndarray:
    """Latents [C, T, h, w] as uint8 [F, H, W, 3]."""
    video = codec.decode(torch.from_numpy(latents.astype(np.float32))[None]).clamp(-1, 1)
    return ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
