"""The step `evaluate`: figures, pictures and videos on held-out identities and sounds."""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from omnihuman.batch import Sound
from omnihuman.config.schema.evaluate import Evaluate, Sampling
from omnihuman.evaluation.figures import PoseFigures, SoundFigures, pose_figures, sound_figures
from omnihuman.evaluation.held_out import GeneratedClip, HeldOut, generate, held_out_windows
from omnihuman.evaluation.held_out_scores import pairs_of, write_scores
from omnihuman.evaluation.long_held_out import long_speech
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE, Shown
from omnihuman.evaluation.metrics.registry import make_metrics
from omnihuman.evaluation.pictures import contact_sheet, plot_following, side_by_side
from omnihuman.evaluation.scoring import Pair, score
from omnihuman.inference.generator import Generator
from omnihuman.inference.placement import Placement
from omnihuman.media.picture import resize_picture
from omnihuman.media.write import write_video
from omnihuman.model.checkpoint import load_model
from omnihuman.storage.files import publish, publish_folder

log = logging.getLogger(__name__)
_NUM_SHOWN = 6


def evaluate(
    config: Evaluate, sampling: Sampling, seed: int, encoded: Path, model: Path, metrics: Path, pictures: Path
) -> None:
    """Measures a model and writes flat figures (`metrics`, for `dvc metrics`) and the folder `pictures`.

    The folder also holds what the metrics of `config.metrics` say, see `held_out_scores.write_scores`.

    A set without eligible held-out clips gives no figures and says so; nothing is made up.

    Raises:
        UserError: the model, the encoded data, the device or a metric's weights are missing.
    """
    placement = Placement.from_environment()
    instruments = make_metrics(config.metrics, config.extractors, placement.codec_device)
    network, description = load_model(model)
    generator = Generator(network, description.encoders, sampling, placement=placement)
    fps = description.encoders.fps

    def generated(items: Sequence[HeldOut], label: str) -> list[GeneratedClip]:
        return generate(generator, items, batch_size=config.batch_size, seed=seed, label=label)

    posed = held_out_windows(encoded, "pose", config.num_pose_clips, seed)
    others = [item.by_another_pose() for item in posed]
    if short := others.count(None):
        log.warning("%d of %d clips are too short to be held against the pose of another moment", short, len(posed))
    by_sound = generated(held_out_windows(encoded, "audio", config.num_audio_clips, seed), "evaluate audio")
    by_pose = generated([item.by_own_pose() for item in posed], "evaluate pose")
    mismatched = iter(generated([other for other in others if other], "evaluate pose"))
    by_another = [next(mismatched) if other else None for other in others]
    sound = sound_figures(by_sound, fps, config, seed)
    pose = pose_figures(by_pose, by_another, config, seed)
    with publish_folder(pictures) as folder:
        for name, clips in (("sound", by_sound), ("pose", by_pose)):
            _show(clips, folder, name, fps)
        if sound.opening.generated.num_clips:
            plot_following(sound.opening, sound.width, folder / "following.png")
        long = long_speech(generator, encoded, config.long_videos, config.long_seconds, seed, config.batch_size)
        by_what = {
            "sound": pairs_of(by_sound, fps),
            "pose": pairs_of(by_pose, fps),
            "long": (Pair(shown, None) for shown in _kept(long, folder)),
        }
        scores = {name: score(instruments, pairs, config.confidence, seed) for name, pairs in by_what.items()}
        write_scores(scores, folder)
    with publish(metrics) as temporary:
        temporary.write_text(json.dumps(_flat(sound, pose, config, len(by_sound), len(by_pose)), indent=2) + "\n")


def _show(clips: list[GeneratedClip], folder: Path, name: str, fps: float) -> None:
    shown = clips[:_NUM_SHOWN]
    if not shown:
        (folder / f"{name}-none.txt").write_text(f"No held-out clip is eligible for being driven by {name}.\n")
        return
    contact_sheet(shown, folder / f"{name}-contact-sheet.png")
    for number, clip in enumerate(shown):
        side_by_side(clip, folder / f"{name}-{number}.mp4", fps)


def _kept(videos: Iterable[Shown], folder: Path) -> Iterator[Shown]:
    """Hands long videos on, and keeps the first."""
    for number, shown in enumerate(videos):
        if number < _NUM_SHOWN and shown.sound is not None:
            size = (4 * shown.frames.shape[2], 4 * shown.frames.shape[1])
            frames = (resize_picture(frame, *size) for frame in shown.frames)
            write_video(folder / f"long-{number}.mp4", frames, shown.fps, Sound(shown.sound, SAMPLE_RATE))
        yield shown


def _flat(sound: SoundFigures, pose: PoseFigures, config: Evaluate, num_by_sound: int, num_by_pose: int) -> dict:
    """Figures as DVC compares them: nested by name, null where nothing could be measured."""
    estimates = {
        "opening": asdict(sound.opening),
        "width": asdict(sound.width),
        "background_psnr_db": asdict(sound.background_psnr),
        "pose_distance": asdict(pose),
    }
    counts = {"confidence": config.confidence, "clips_by_sound": num_by_sound, "clips_by_pose": num_by_pose}
    return {**counts, **_without_nan(estimates)}


def _without_nan(value: dict) -> dict:
    cleaned = {}
    for key, item in value.items():
        if isinstance(item, dict):
            cleaned[key] = _without_nan(item)
        else:
            cleaned[key] = None if isinstance(item, float) and math.isnan(item) else item
    return cleaned
