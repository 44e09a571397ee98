"""What a person looks at: contact sheets, videos with sound, plots."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw

from omnihuman.batch import Sound
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.evaluation.figures import Following
from omnihuman.evaluation.held_out import GeneratedClip
from omnihuman.media.picture import resize_picture
from omnihuman.media.write import write_video

mpl.use("Agg")
_TILE_PIXELS = 96
_MARGIN = 4


def contact_sheet(clips: Sequence[GeneratedClip], path: Path, num_columns: int = 9) -> None:
    """One picture: per clip the reference and evenly spaced frames, the real clip above the generated one."""
    rows = [
        row for clip in clips for row in (_strip(clip, clip.real, num_columns), _strip(clip, clip.video, num_columns))
    ]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _MARGIN), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    image = Image.fromarray(np.concatenate(padded))
    draw = ImageDraw.Draw(image)
    top = 0
    for number, row in enumerate(padded):
        draw.text(
            (4, top + 4), "real" if number % 2 == 0 else "generated", fill="white", stroke_width=1, stroke_fill="black"
        )
        top += len(row)
    image.save(path)


def _strip(clip: GeneratedClip, video: np.ndarray, num_columns: int) -> np.ndarray:
    chosen = video[np.linspace(0, len(video) - 1, num_columns - 1).round().astype(int)]
    tiles = [_tile(frame) for frame in [clip.reference, *chosen]]
    return np.concatenate([np.pad(t, ((0, 0), (0, _MARGIN), (0, 0)), constant_values=255) for t in tiles], axis=1)


def _tile(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return resize_picture((frame * 255).round().astype(np.uint8), round(width * _TILE_PIXELS / height), _TILE_PIXELS)


def side_by_side(clip: GeneratedClip, path: Path, fps: float, enlarge: int = 4) -> None:
    """Video with sound: reference, real clip and generated clip next to each other."""
    height, width = clip.reference.shape[:2]
    still = np.broadcast_to(clip.reference, clip.video.shape)
    frames = (np.concatenate([still, clip.real, clip.video], axis=2) * 255).round().astype(np.uint8)
    size = (3 * width * enlarge, height * enlarge)
    sound = Sound(clip.sound(fps).astype(np.float32), SAMPLE_RATE)
    write_video(path, (resize_picture(frame, *size) for frame in frames), fps, sound if len(sound.samples) else None)


def plot_following(opening: Following, width: Following, path: Path) -> None:
    """Mean correlations with intervals: generated, shuffled sound, real."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 2.8), layout="constrained")
    colours = {"shuffled sound": "#9aa0a6", "generated": "#1a73e8", "real clips": "#188038"}
    for row, (name, part) in enumerate((("mouth opening\nand loudness", opening), ("mouth width\nand vowel", width))):
        for offset, (label, estimate) in enumerate(zip(colours, (part.null, part.generated, part.real), strict=True)):
            y = row + 0.22 * (offset - 1)
            axes.plot([estimate.low, estimate.high], [y, y], color=colours[label], linewidth=3, solid_capstyle="round")
            axes.plot(estimate.value, y, "o", color=colours[label], label=label if row == 0 else None)
        axes.text(-0.02, row, name, transform=axes.get_yaxis_transform(), ha="right", va="center")
    axes.set(yticks=[], ylim=(1.6, -0.6), xlabel="mean correlation over held-out clips, 95% interval")
    axes.axvline(0, color="#dadce0", zorder=0)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
