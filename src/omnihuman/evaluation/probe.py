"""A small evaluation in the middle of training: the same few held-out clips every time."""

import math
from collections.abc import Sequence
from pathlib import Path

from omnihuman.config.schema.evaluate import Evaluate
from omnihuman.evaluation.figures import pose_figures, sound_figures
from omnihuman.evaluation.held_out import GeneratedClip, generate, held_out_windows
from omnihuman.evaluation.pictures import contact_sheet, side_by_side
from omnihuman.inference.generator import Generator

NUM_CLIPS = 4
_CONFIG = Evaluate(batch_size=NUM_CLIPS, num_resamples=200)


def probe(generator: Generator, encoded: Path, modalities: Sequence[str], seed: int, folder: Path) -> dict[str, float]:
    """Videos and contact sheets in `folder`, and means over `NUM_CLIPS` clips; what cannot be measured is absent.

    Opening: the correlation of the mouth's opening with the sound's loudness, that with other clips' sounds (null) and
    that of the real clips. Pose gain: how much nearer keypoints are to the driving pose than to the reference's, that
    of a still picture and that of the real clips. So few clips show whether a model follows at all, not how well.

    Args:
        modalities: of audio and pose, what the stage trains.
    """
    fps = generator.encoders.fps
    figures: dict[str, float] = {}
    if "audio" in modalities:
        items = held_out_windows(encoded, "audio", NUM_CLIPS, seed)
        clips = generate(generator, items, batch_size=NUM_CLIPS, seed=seed, label="probe audio")
        sound = sound_figures(clips, fps, _CONFIG, seed)
        figures["opening"] = sound.opening.generated.value
        figures["opening_null"] = sound.opening.null.value
        figures["opening_real"] = sound.opening.real.value
        figures["background_psnr_db"] = sound.background_psnr.value
        _show(clips, folder, "sound", fps)
    if "pose" in modalities:
        items = [item.by_own_pose() for item in held_out_windows(encoded, "pose", NUM_CLIPS, seed)]
        clips = generate(generator, items, batch_size=NUM_CLIPS, seed=seed, label="probe pose")
        pose = pose_figures(clips, [None] * len(clips), _CONFIG, seed)
        figures["pose_gain"] = pose.gain.value
        figures["pose_gain_still"] = pose.still.value
        figures["pose_gain_real"] = pose.real.value
        _show(clips, folder, "pose", fps)
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _show(clips: Sequence[GeneratedClip], folder: Path, name: str, fps: float) -> None:
    if clips:
        contact_sheet(clips, folder / f"{name}-contact-sheet.png")
        side_by_side(clips[0], folder / f"{name}.mp4", fps)
