"""Runs the step `score` in a process that can be killed, and notes each clip that was really measured.

Called as `python -m tests.counted_scoring FOLDER`: of FOLDER/sources.parquet and FOLDER/clips.parquet. While the file
FOLDER/allowed holds a number, no worker begins a clip once so many were measured: on a fast machine the step would else
be through before it could be killed.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from omnihuman.batch import Sound
from omnihuman.config.schema.score import Score
from omnihuman.data.manifest import CLIPS, SOURCES, ClipFile, write_table
from omnihuman.media.worker import Limits, Outcome, run_guarded
from omnihuman.media.write import write_video

CLIPS_PER_CHUNK = 2
MEASURED = "measured"
ALLOWED = "allowed"


def measured(folder: Path) -> list[str]:
    """Ids of the clips that were really measured, in the order of time."""
    log = folder / MEASURED
    return log.read_text().split() if log.exists() else []


def noted(folder: Path, function: Callable[[ClipFile], object], job: ClipFile) -> object:
    """Applies the function, once it is allowed, and then writes the clip's id."""
    allowed = folder / ALLOWED
    while allowed.exists() and len(measured(folder)) >= int(allowed.read_text() or 0):
        time.sleep(0.01)
    value = function(job)
    with (folder / MEASURED).open("a") as file:
        file.write(f"{job.clip_id}\n")
    return value


def write_corpus(folder: Path, num_clips: int) -> None:
    """So many short videos of noise, each one clip."""
    rng, sources, clips = np.random.default_rng(num_clips), [], []
    for index in range(num_clips):
        name = f"v{index:03d}"
        pictures = rng.integers(0, 255, (20, 64, 64, 3), np.uint8)
        write_video(folder / f"{name}.mp4", pictures, 25.0, Sound(rng.normal(0, 0.1, 16000).astype(np.float32), 16000))
        row = {"source_id": name, "path": f"{name}.mp4", "status": "ok", "width": 64, "height": 64}
        row |= {"keypoints_path": "", "keypoints_sha256": "", "caption": "noise", "identity": name, "split": "train"}
        sources.append(dict.fromkeys(SOURCES.names) | row)
        clip = {"clip_id": f"c{index:03d}", "source_id": name, "index": 0, "status": "ok", "error": ""}
        clips.append(clip | {"start_seconds": 0.0, "end_seconds": 0.8})
    write_table(sources, SOURCES, folder / "sources.parquet")
    write_table(clips, CLIPS, folder / "clips.parquet")


def main(folder: Path) -> None:
    """Scores."""
    from tests import counted_scoring  # not __main__, which no worker could import

    from omnihuman.data import kept_scores, scoring

    kept_scores.CLIPS_PER_CHUNK = CLIPS_PER_CHUNK

    def run(function: Callable, items: Sequence, limits: Limits, description: str) -> Iterator[Outcome]:
        return run_guarded(partial(counted_scoring.noted, folder, function), items, limits, description)

    outputs = folder / "scores.parquet", folder / "strips.parquet"
    scoring.score(Score(short_side_pixels=64), folder, folder / "clips.parquet", *outputs, run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
