"""Clips per second of the scorers with published weights at their full size, with random weights in their place.

Weights of the published layout are drawn and loaded by the way that published ones go, so that the work is the same.
What they say of the clip means nothing. Decoding is not counted, and stands beside it. A scorer that answers anything
but `ok` ends this with an error, because it would have measured nothing.

    python benchmarks/published_scorers.py [--device cuda] [--threads 2]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.io import savemat
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from measure import machine
from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.config.schema.score import Score
from omnihuman.data.manifest import ClipFile
from omnihuman.data.scorers import aesthetics, niqe, syncnet
from omnihuman.data.scorers.content import Scorer
from omnihuman.data.scorers.registry import scorers_for
from omnihuman.data.scoring import measure, read_clip
from omnihuman.data.synthetic.corpus import write_clip
from omnihuman.data.synthetic.plan import plan_corpus
from omnihuman.encoders.aesthetics import Predictor
from omnihuman.encoders.syncnet import SyncNet
from omnihuman.encoders.weights import files_sha256
from omnihuman.storage.files import file_sha256

SHORT_SIDE_PIXELS = 480
"""So that the drawn face is as wide as SyncNet's pipeline asks for."""
CLIP_SECONDS = 6.0


def random_syncnet(config: Score, folder: Path, device: torch.device) -> Score:
    """The configuration with SyncNet's weights drawn, and its network on the device, where the scorer keeps it."""
    path = folder / "syncnet.model"
    torch.save(SyncNet().state_dict(), path)
    sha256 = file_sha256(path)
    syncnet._network(str(path), sha256).to(device)
    return replace(config, syncnet_weights=str(path), syncnet_sha256=sha256)


def random_laion(config: Score, folder: Path, device: torch.device) -> Score:
    """The same with CLIP ViT-L/14 and the aesthetic predictor behind it."""
    clip, head = folder / "clip", folder / "predictor.pth"
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, patch_size=14, projection_dim=768)).save_pretrained(clip)
    torch.save(Predictor().state_dict(), head)
    parts = {f"network/{name}": clip / name for name in ("config.json", "model.safetensors")}
    files = str(clip), files_sha256(parts), str(head), file_sha256(head)
    network = aesthetics._network(*files)
    network._network.to(device)
    network._predictor.to(device)
    names = ("clip_weights", "clip_sha256", "aesthetic_weights", "aesthetic_sha256")
    return replace(config, **dict(zip(names, files, strict=True)))


def random_niqe(config: Score, folder: Path, _: torch.device) -> Score:
    """The same with the statistics that NIQE compares with, which runs on the processor alone."""
    path, random = folder / "niqe.mat", np.random.default_rng(0)
    spread = random.normal(size=(niqe.NUM_STATISTICS, niqe.NUM_STATISTICS))
    savemat(path, {"mu_prisparam": random.normal(size=(1, len(spread))), "cov_prisparam": spread @ spread.T})
    return replace(config, niqe_weights=str(path), niqe_sha256=file_sha256(path))


WEIGHTS: tuple[Callable[[Score, Path, torch.device], Score], ...] = (random_syncnet, random_laion, random_niqe)
"""Each configures one published scorer with random weights."""


def drawn_clip(folder: Path) -> ClipFile:
    """A drawn person who speaks."""
    corpus = SyntheticCorpus(1, 1, CLIP_SECONDS, short_side_pixels=SHORT_SIDE_PIXELS)
    (plan,) = plan_corpus(corpus, 0)
    write_clip(plan, folder, folder / "truth")
    keypoints = next(folder.glob("*.keypoints*"), None)
    return ClipFile("clip", "video", next(folder.glob("*.mp4")), keypoints, 0.0, 0.8 * CLIP_SECONDS)


def seconds_of(scorer: Scorer, config: Score, clip: ClipFile, repetitions: int) -> tuple[float, float]:
    """Medians of wall and processor time of a clip; the face, which scorers share, is found before."""
    content = read_clip(config, clip)
    content.face  # noqa: B018 (cached)
    times = []
    for _ in range(repetitions + 1):
        wall, processor = time.perf_counter(), time.process_time()
        answers = measure([scorer], content)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
        wrong = [answer for answer in answers if answer.status != "ok"]
        if wrong:
            raise SystemExit(f"{wrong[0].scorer} measured nothing ({wrong[0].status}): {wrong[0].error}")
    wall, processor = (statistics.median(of) for of in zip(*times[1:], strict=True))
    return wall, processor


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    torch.manual_seed(0)
    print(f"{machine(device)}, {given.threads} thread(s) for the processor; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        config = Score(short_side_pixels=SHORT_SIDE_PIXELS)
        for draw in WEIGHTS:
            config = draw(config, Path(name), device)
        clip = drawn_clip(Path(name) / "clip")
        start = time.perf_counter()
        content = read_clip(config, clip)
        size = "x".join(map(str, content.frames.pixels.shape))
        print(f"one clip is {size}; its decode takes {time.perf_counter() - start:.2f} s")
        for scorer in scorers_for(config):
            if scorer.implementation == "published":
                wall, processor = seconds_of(scorer, config, clip, given.repetitions)
                print(
                    f"  {', '.join(scorer.names)}: {1 / wall:.3f} clips a second,"
                    f" {1 / processor:.3f} a second of processor time ({processor:.2f} s a clip)"
                )


if __name__ == "__main__":
    main()
