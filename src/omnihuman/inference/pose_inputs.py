"""The driving pose of a request, from whatever holds one, at model time and in the picture's shares.

`--pose` takes NAME.keypoints.npz, JSON of OpenPose, DWPose or MMPose (`pose_json`), a rendered skeleton video
(`skeleton_video`), or a video of a person, whose pose DWPose finds where its weights are given; `--video` the last two.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from omnihuman.batch import Keypoints
from omnihuman.data.shards import Encoders
from omnihuman.data.sidecar import fit_keypoints, read_keypoints
from omnihuman.encoders.pose_estimator import WholeBodyEstimator, estimator_files, pinned_files
from omnihuman.encoders.weights import files_sha256
from omnihuman.errors import UserError
from omnihuman.inference.pose_json import COCO_18, read_pose_json
from omnihuman.inference.request import InputOptions, RenderRequest
from omnihuman.inference.retarget import placed, retarget
from omnihuman.inference.skeleton_video import is_skeleton, read_skeleton
from omnihuman.media.video import stream_frames
from omnihuman.media.worker import Limits, run_guarded

log = logging.getLogger(__name__)
FPS = 25.0
"""Of keypoints in a JSON, where nobody says another; and the most pictures a second that are looked at in a video."""
MAX_SECONDS = 3600.0
_MAX_SHORT_SIDE = 1080
_LOOKS = 5
"""Pictures by which a video of a skeleton is known from one of a person."""
_READING = Limits(deadline_seconds=4 * 3600.0, memory_megabytes=8192)
_OPTION = "--pose-weights"


@dataclass(frozen=True)
class PoseTrack:
    """A pose over time, in shares of a canvas."""

    keypoints: Keypoints
    aspect: float
    """Width over height of the canvas; 0 where it is not known, and then taken to be the picture's."""


def read_pose(path: Path, options: InputOptions) -> PoseTrack:
    """Reads a track in any of the forms above.

    Raises:
        UserError: it is malformed, shows nobody, is too long, or is a video of a person and no weights are given.
    """
    try:
        if path.suffix.lower() == ".npz":
            track = PoseTrack(read_keypoints(path), 0.0)
        elif path.suffix.lower() == ".json" or path.is_dir():
            track = _from_json(path, options)
        else:
            track = _from_video(path, options)
    except ValueError as error:
        raise UserError(f"pose {path}: {error}") from error
    if track.keypoints.seconds[-1] > MAX_SECONDS:
        raise UserError(f"pose {path}: longer than {MAX_SECONDS:g} seconds, cut it")
    return track


def pose_of_picture(pixels: np.ndarray, options: InputOptions) -> np.ndarray | None:
    """[133, 3] in shares of a picture, uint8 [H, W, 3], where weights to find it are given and anybody is seen."""
    if not options.pose_weights:
        return None
    points = _estimator(options).estimate(pixels[None])[0]
    return points if points[:, 2].any() else None


def num_frames_of(track: PoseTrack, fps: float) -> int:
    """Of the video that a track fills at model time."""
    return round(float(track.keypoints.seconds[-1]) * fps) + 1


def driving_keypoints(
    track: PoseTrack,
    num_frames: int,
    encoders: Encoders,
    person: np.ndarray | None,
    aspect: float,
    options: InputOptions,
) -> np.ndarray:
    """float32 [num_frames, K, 3] from second 0 on, by the nearest declared moment; the last one stays.

    Args:
        person: the pose in the picture, [K, 3], or None where it is not known.
        aspect: of the picture.
    """
    points = track.keypoints.points
    canvas = track.aspect or aspect
    if person is not None and options.retarget:
        count = min(points.shape[1], len(person))
        points = retarget(points[:, :count], canvas, person[:count], aspect)
    else:
        points = placed(points, canvas, aspect)
    return fit_keypoints(points[_nearest(track.keypoints.seconds, num_frames, encoders.fps)], encoders.num_keypoints)


def warn_of_other_length(track: PoseTrack, num_frames: int, fps: float, path: Path) -> None:
    """Says where a pose ends before or after the sound, which decides."""
    own = num_frames_of(track, fps)
    if abs(own - num_frames) > 1:
        what = "its last moment is held" if own < num_frames else "the rest is left out"
        log.warning("pose %s: lasts %.2f s, the sound %.2f s: %s", path, own / fps, num_frames / fps, what)


def _nearest(seconds: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Index of the moment nearest to each frame; of two as near the earlier."""
    moments = np.arange(num_frames) / fps
    return np.searchsorted((seconds[1:] + seconds[:-1]) / 2, moments - 1e-9)


def _from_json(path: Path, options: InputOptions) -> PoseTrack:
    read = read_pose_json(path, (options.pose_width, options.pose_height))
    fps = options.pose_fps or FPS
    if not options.pose_fps and len(read.frames) > 1:
        log.info("pose %s: tells no rate, %g frames a second are taken; say another by --pose-fps", path, fps)
    return PoseTrack(Keypoints(read.points, read.frames / fps), read.aspect)


def _from_video(path: Path, options: InputOptions) -> PoseTrack:
    (outcome,) = run_guarded(partial(track_video, options), [path], _READING, "")
    if outcome.value is None:
        raise ValueError(outcome.error)
    return outcome.value


def track_video(options: InputOptions, path: Path) -> PoseTrack:
    """The pose in a video, of a skeleton or of a person; runs inside a guarded worker.

    Raises:
        ValueError: the video cannot be decoded, or shows no pose.
        UserError: it shows a person, and no weights are given; or the weights are not right.
    """
    pictures = _pictures(path)
    first = list(islice(pictures, _LOOKS))
    if not first:
        raise ValueError("has no picture that can be decoded")
    if sum(is_skeleton(pixels) for _, pixels in first) * 2 > len(first):
        find = _skeleton_as_coco
    elif options.pose_weights:
        estimator = _estimator(options)
        find = lambda pixels: estimator.estimate(pixels[None])[0]  # noqa: E731
    else:
        raise UserError(
            "is a video of a person (or of a skeleton in colours other than OpenPose's): to find poses in it give"
            f" {_OPTION} FOLDER with DWPose's yolox_l.onnx and dw-ll_ucoco_384.onnx, or its keypoints as JSON or .npz"
        )
    found = [(seconds, find(pixels)) for seconds, pixels in chain(first, pictures)]
    points = np.stack([points for _, points in found])
    if not points[..., 2].any():
        raise ValueError("shows no pose in any picture")
    height, width = first[0][1].shape[:2]
    return PoseTrack(Keypoints(points, np.array([seconds for seconds, _ in found])), width / height)


def _pictures(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Presentation times from 0 on and uint8 [H, W, 3], at most `FPS` a second."""
    try:
        with av.open(str(path.absolute())) as container:
            if not container.streams.video:
                raise ValueError("is neither .npz nor .json nor a video")
            short = min(container.streams.video[0].width, container.streams.video[0].height)
    except FFmpegError as error:
        raise ValueError(f"is neither .npz nor .json nor a video that can be decoded ({error.strerror})") from error
    last = -1
    for seconds, _, pixels in stream_frames(path, min(max(short, 2), _MAX_SHORT_SIDE)):
        if seconds > MAX_SECONDS:
            raise ValueError(f"longer than {MAX_SECONDS:g} seconds, cut it")
        if (place := round(seconds * FPS)) > last:
            last = place
            yield max(0.0, seconds), pixels


def _skeleton_as_coco(pixels: np.ndarray) -> np.ndarray:
    """[17, 3] in the order of `batch.KEYPOINTS`."""
    return read_skeleton(pixels)[list(COCO_18)]


def with_known_weights(request: RenderRequest) -> RenderRequest:
    """The request with the hash of the weights that find its pose, if it has any.

    Raises:
        UserError: the folder does not hold them.
    """
    return request if request.pose_from is None else replace(request, options=known_weights(request.options))


def known_weights(options: InputOptions) -> InputOptions:
    """The options with the hash of the weights that find poses, where a folder is named and no hash.

    Raises:
        UserError: the folder does not hold them.
    """
    if not options.pose_weights or options.pose_sha256:
        return options
    return replace(options, pose_sha256=files_sha256(estimator_files(Path(options.pose_weights))))


def _estimator(options: InputOptions) -> WholeBodyEstimator:
    folder = Path(options.pose_weights)
    pinned = options.pose_sha256
    files = pinned_files(_OPTION, folder, pinned) if pinned else estimator_files(folder)
    return WholeBodyEstimator(files["detector.onnx"], files["pose.onnx"])
