"""What a person looks at when arms are compared: losses, and the same people by every arm side by side."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from omnihuman.media.video import read_frames
from omnihuman.pipeline.arms import KEPT, LOSSES

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of arms in their order: Okabe and Ito's, which also people who confuse red and green tell apart."""
NUM_ROWS = 6
NUM_MOMENTS = 3
_HEIGHT_PIXELS = 96
_FPS = 25.0


@dataclass(frozen=True)
class Grid:
    """The same people by every arm, in the form of the paper's figures 3 to 6: arms as columns, people as rows."""

    driven_by: str
    rows: list[list[str]]
    """Of each person the reference and one picture an arm, as data URIs; a picture shows a few moments."""


def picture_grids(folders: Mapping[str, Path]) -> list[Grid]:
    """One grid for each set of videos that all arms have.

    Args:
        folders: by arm, of one of its runs. Its videos `SET-NUMBER.mp4` show reference, real and generated clip side by
            side, and those of one name the same person and moment in all arms.
    """
    names = [{path.name for path in (folder / KEPT).glob("*-*.mp4")} for folder in folders.values()]
    common = sorted(set.intersection(*names)) if names else []
    grids: list[Grid] = []
    for kind in dict.fromkeys(name.rpartition("-")[0] for name in common):
        chosen = [name for name in common if name.rpartition("-")[0] == kind][:NUM_ROWS]
        grids.append(Grid(kind, [_row([folder / KEPT / name for folder in folders.values()]) for name in chosen]))
    return grids


def _row(videos: Sequence[Path]) -> list[str]:
    shown = [read_frames(path, fps=_FPS, short_side_pixels=_HEIGHT_PIXELS).pixels for path in videos]
    width = shown[0].shape[2] // 3
    moments = [frames[np.linspace(0, len(frames) - 1, NUM_MOMENTS).round().astype(int)] for frames in shown]
    strips = [np.concatenate(list(part[:, :, 2 * width : 3 * width]), axis=1) for part in moments]
    return [_data_uri(picture) for picture in (shown[0][0, :, :width], *strips)]


def _data_uri(picture: np.ndarray) -> str:
    """Of uint8 [H, W, 3], as JPEG."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "jpeg", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def loss_curves(folders: Mapping[str, Sequence[Path]]) -> str:
    """The loss of every stage as SVG: for each arm the mean over its seeds, from the lowest to the highest.

    Args:
        folders: by arm, of all its runs. Empty text where none of them has trained.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    stages = sorted({path.stem for runs in folders.values() for run in runs for path in (run / LOSSES).glob("*.csv")})
    curves = {
        stage: {arm: _smooth_losses([run / LOSSES / f"{stage}.csv" for run in runs]) for arm, runs in folders.items()}
        for stage in stages
    }
    curves = {stage: arms for stage, arms in curves.items() if any(len(losses) for losses in arms.values())}
    if not curves:
        return ""
    with mpl.rc_context({"svg.hashsalt": "omnihuman", "svg.fonttype": "none"}):
        figure, panels = pyplot.subplots(
            1, len(curves), figsize=(3.6 * len(curves), 3.1), squeeze=False, layout="constrained"
        )
        for axes, (stage, arms) in zip(panels[0], curves.items(), strict=True):
            for (arm, losses), colour in zip(arms.items(), COLOURS * 3, strict=False):
                if len(losses):
                    steps = np.arange(1, losses.shape[1] + 1)
                    axes.fill_between(steps, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.15, lw=0)
                    axes.plot(steps, losses.mean(axis=0), color=colour, label=arm, lw=1.5)
            axes.set(title=stage, xlabel="step", yscale="log")
            axes.spines[["top", "right"]].set_visible(False)
        panels[0][0].set_ylabel("training loss, smoothed")
        handles, labels = panels[0][-1].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, fontsize=8, ncols=len(labels), loc="outside lower left")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return file.getvalue()[file.getvalue().index("<svg") :]


def _smooth_losses(files: Sequence[Path]) -> np.ndarray:
    """float64 [seeds, steps]: running means of a twentieth of the steps; without rows where nothing was trained."""
    losses = [pd.read_csv(file)["loss"] for file in files if file.is_file()]
    losses = [loss for loss in losses if len(loss)]
    smooth = [loss.rolling(max(1, len(loss) // 20), min_periods=1).mean().to_numpy(float) for loss in losses]
    return np.array(smooth) if smooth else np.zeros((0, 0))
