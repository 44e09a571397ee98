"""Writes the synthetic corpus: videos as a user's own folder would hold them, and the ground truth apart from them."""

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.data.synthetic.caption import describe_clip
from omnihuman.data.synthetic.defects import truncate_file
from omnihuman.data.synthetic.plan import ClipPlan, plan_corpus
from omnihuman.data.synthetic.render import Mouth, render_clip
from omnihuman.media.write import write_video

CRF = 18
PRESET = "ultrafast"


def generate_corpus(config: SyntheticCorpus, seed: int, videos: Path, truth: Path) -> None:
    """Draws all clips, several at once; the files are a pure function of `config` and `seed`.

    `videos` receives NAME.mp4, the sidecar NAME.json and, for most clips, the declared pose NAME.keypoints.npz with
    `points` float32 [F, 17, 3] (x and y as shares of width and height, confidence) and `seconds` float64 [F].
    `truth` receives one NAME.json per clip, which no scorer may read.
    """
    plans = plan_corpus(config, seed)
    work = partial(write_clip, videos=videos, truth=truth)
    # Fork would copy locks that OpenCV's or torch's threads hold.
    context = multiprocessing.get_context("spawn")
    num_workers = min(os.cpu_count() or 1, len(plans)) or 1
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        done = pool.map(work, plans, chunksize=max(1, len(plans) // (16 * num_workers)))
        for _ in tqdm(done, total=len(plans), desc="drawing clips", disable=None, file=sys.stderr):
            pass


def write_clip(plan: ClipPlan, videos: Path, truth: Path) -> None:
    """Draws one clip and writes its files."""
    cv2.setNumThreads(1)
    videos.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    clip = render_clip(plan)
    path = videos / f"{plan.name}.mp4"
    write_video(path, clip.frames, plan.fps, clip.sound, crf=CRF, preset=PRESET)
    if plan.defect == "truncated":
        truncate_file(path)
    if plan.has_keypoints:
        np.savez(videos / f"{plan.name}.keypoints.npz", points=clip.keypoints.points, seconds=clip.keypoints.seconds)
    _write_json(videos / f"{plan.name}.json", _sidecar(plan))
    _write_json(truth / f"{plan.name}.json", _ground_truth(plan, clip.mouth))


def _sidecar(plan: ClipPlan) -> dict[str, Any]:
    return {
        "identity": plan.person.name,
        "caption": describe_clip(plan),
        "language": "en",
        "licence": "CC0-1.0",
        "consent_basis": "synthetic",
        "rights_holder": "nobody; drawn by a program",
        "takedown_key": plan.person.name,
    }


def _ground_truth(plan: ClipPlan, mouth: Mouth) -> dict[str, Any]:
    scene = plan.scenes[0]
    return {
        "defect": plan.defect,
        "kind": plan.kind,
        "shot": scene.shot,
        "format": plan.format,
        "fps": plan.fps,
        "background": scene.background,
        "gesture": scene.gesture,
        "movement": scene.movement,
        "style": scene.style,
        "camera_pans": scene.pans,
        "sound": plan.sound,
        "mouth": plan.mouth,
        "sound_late_by_seconds": plan.shift_seconds,
        "seconds": [round(float(value), 6) for value in plan.seconds],
        "mouth_opening": [round(float(value), 5) for value in mouth.opening],
        "mouth_width": [round(float(value), 5) for value in mouth.width],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
