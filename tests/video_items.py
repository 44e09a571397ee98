"""Small test sets: people who are moving squares, with a tone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.written import tone

from omnihuman.config.schema.protocol import Clips, EvaluationProtocol, ItemsOf
from omnihuman.evaluation.metrics.measure import Extractor, Figure, Kept, Shown
from omnihuman.evaluation.protocol_run import Named
from omnihuman.evaluation.statistics import bootstrap_mean
from omnihuman.media.write import write_video

WIDTH, HEIGHT, FPS, NUM_FRAMES = 48, 64, 25.0, 10
PROTOCOL = EvaluationProtocol(ItemsOf("plain"), Clips(FPS, WIDTH, HEIGHT), ("audio",), ("flicker",))


@dataclass(frozen=True)
class Flicker:
    """1 minus the mean change between pictures, of 255: VBench's temporal flickering."""

    name: str = "flicker"
    min_videos: int = 2
    calibrated: bool = False

    def keep(self, shown: Shown) -> np.ndarray | None:
        if len(shown.frames) < 2:
            return None
        return np.array([1 - np.abs(np.diff(shown.frames.astype(np.float64), axis=0)).mean() / 255])

    def figure(self, generated: Sequence[Kept], real: Sequence[Kept], confidence: float, seed: int) -> Figure:
        items = {kept.item: float(kept.values.mean()) for kept in generated}
        people = [kept.person for kept in generated]
        few = len(items) < self.min_videos
        values = np.array([] if few else list(items.values()))
        estimate = bootstrap_mean(values, [] if few else people, confidence, 200, seed)
        floor = float(np.mean([kept.values[0] for kept in real])) if real else None
        note = f"needs {self.min_videos} videos, there are {len(items)}" if few else ""
        extractor = Extractor("difference of pictures", "none", calibrated=self.calibrated)
        return Figure(self.name, estimate, extractor, "higher", floor=floor, note=note, items=items)


@dataclass(frozen=True)
class Drift(Flicker):
    """The same in each third of a video."""

    name: str = "drift_flicker"

    def keep(self, shown: Shown) -> np.ndarray | None:
        changes = np.abs(np.diff(shown.frames.astype(np.float64), axis=0)).mean((1, 2, 3))
        return np.array([1 - third.mean() / 255 for third in np.array_split(changes, 3)])


def named(protocol: EvaluationProtocol = PROTOCOL, name: str = "squares") -> Named:
    """The protocol with these metrics."""
    return Named(name, protocol, (Flicker(), Drift()))


def square(number: int, num_frames: int = NUM_FRAMES, width: int = WIDTH, height: int = HEIGHT, noise: float = 0.0):
    """uint8 [F, H, W, 3]: a square that wanders, one colour a person."""
    random = np.random.default_rng(number)
    frames = np.full((num_frames, height, width, 3), 90, np.float64)
    for index in range(num_frames):
        left = (index + 5 * number) % (width - 16)
        frames[index, 20:36, left : left + 16] = (250, 40 * number % 255, 60)
    frames += random.normal(0, 1, frames.shape) * noise
    return frames.clip(0, 255).astype(np.uint8)


def write_set(folder: Path, count: int = 3, noise: float = 0.0, **changes) -> Path:
    """person-0.mp4 and so on."""
    for number in range(count):
        frames = square(number, **{"noise": noise, **changes})
        write_video(folder / f"person-{number}.mp4", frames, FPS, tone(len(frames) / FPS), crf=10)
    return folder


def write_list(path: Path, videos: Path) -> Path:
    """A list of the videos of a folder, two of each person."""
    rows = [
        {"item": video.stem, "person": f"p{index // 2}", "video": str(video.relative_to(path.parent))}
        for index, video in enumerate(sorted(videos.glob("*.mp4")))
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path
