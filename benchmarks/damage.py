"""Do the metrics move the right way under known damage? Drawn people, and real ones where their folder is there.

`python benchmarks/damage.py [--media ../shared/media/talk] [--write docs/benchmarks.md]`: every video is damaged more
and more, and each metric that should feel it is measured at each strength, against the undamaged videos. The effect is
the mean change at the greatest strength over its standard deviation across videos; of distances between sets the floor
is told instead. Prints a table, and puts it into the document where one is named.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from omnihuman.batch import KEYPOINTS
from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.config.schema.evaluate import Extractors
from omnihuman.data.synthetic.plan import SHOTS, ClipPlan, plan_corpus
from omnihuman.data.synthetic.render import render_clip
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE, Figure, Kept, Shown
from omnihuman.evaluation.metrics.registry import make_metrics
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames

WRISTS = [KEYPOINTS.index("left_wrist"), KEYPOINTS.index("right_wrist")]
FPS = 25
HEADING = "## Metrics under known damage"
INTRODUCTION = """\
`python benchmarks/damage.py --write docs/benchmarks.md`. Every video is damaged more and more; the first figure is that
of the undamaged ones. Effect: mean change at the greatest strength over its standard deviation across videos; in
brackets the floor of a distance between sets. Extractors are the stand-ins: nothing here says anything about the
published ones. Distances between sets hold damaged videos against the same ones undamaged, which favours them."""
Damage = Callable[[Shown, float], Shown]


def drawn_people(
    count: int, short_side: int, seconds: float, seed: int = 3, shots: Iterable[str] = SHOTS
) -> list[Shown]:
    """One clip each of drawn people without a defect, at 25 frames a second, resized; `shots` are keys of `SHOTS`."""
    config = SyntheticCorpus(20 * count, 1, seconds / 0.8, 0.0, 0.0, 160)
    plans = [plan for plan in plan_corpus(config, seed) if plan.fps == FPS and plan.scenes[0].shot in shots]
    return [_drawn_person(plan, short_side, round(FPS * seconds)) for plan in plans[:count]]


def _drawn_person(plan: ClipPlan, short_side: int, num_frames: int) -> Shown:
    """Its declared pose drives, and that of its first frame is the reference's."""
    clip = render_clip(plan)
    scale = short_side / min(plan.height, plan.width)
    size = (round(plan.width * scale), round(plan.height * scale))
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in islice(clip.frames, num_frames)]
    points = clip.keypoints.points[: len(frames)]
    sound = clip.sound.samples[: round(len(frames) / FPS * SAMPLE_RATE)]
    return Shown(plan.name, plan.person.name, FPS, np.stack(frames), sound, frames[0], points, points[0])


def real_people(folder: Path, short_side: int, seconds: float) -> list[Shown]:
    """The first seconds of each video of a folder."""
    people = []
    for path in sorted(folder.glob("*.mp4")):
        frames = read_frames(path, fps=FPS, short_side_pixels=short_side)
        first = round(frames.seconds[0] * FPS)  # a file may begin late on its own clock
        pixels = frames.pixels[first : first + round(seconds * FPS)]
        sound = read_sound(path, SAMPLE_RATE, first / FPS, (first + len(pixels)) / FPS)
        samples = None if sound is None else sound.samples
        people.append(Shown(path.stem, path.stem, FPS, pixels, samples, pixels[0]))
    return people


def changed(shown: Shown, frames: np.ndarray) -> Shown:
    """The video with other frames, rounded to uint8."""
    return replace(shown, frames=np.clip(np.round(frames), 0, 255).astype(np.uint8))


def blurred(shown: Shown, sigma: float) -> Shown:
    """Gaussian blur; `sigma` is in hundredths of the short side."""
    pixels = sigma / 100 * min(shown.frames.shape[1:3])
    return changed(shown, np.stack([cv2.GaussianBlur(frame, (0, 0), pixels) for frame in shown.frames]))


def noisy(shown: Shown, levels: float) -> Shown:
    """Independent Gaussian noise."""
    return changed(shown, shown.frames + np.random.default_rng(0).normal(0, levels, shown.frames.shape))


def blocky(shown: Shown, strength: float) -> Shown:
    """JPEG of quality 100 less `strength`."""
    codes = [
        cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, round(100 - strength)])[1] for frame in shown.frames
    ]
    return changed(shown, np.stack([cv2.imdecode(code, cv2.IMREAD_COLOR) for code in codes]))


def late(shown: Shown, num_frames: float) -> Shown:
    """The sound comes later by so many frames; what falls off the end comes first."""
    assert shown.sound is not None
    return replace(shown, sound=np.roll(shown.sound, round(num_frames / shown.fps * SAMPLE_RATE)))


def frozen_hands(shown: Shown, share: float) -> Shown:
    """Below the chin the last `share` of the video stands still; the face goes on."""
    assert shown.reference_points is not None
    points, height = shown.reference_points, shown.frames.shape[1]
    eyes, nose = points[[KEYPOINTS.index("left_eye"), KEYPOINTS.index("right_eye")], 1].mean(), points[0, 1]
    chin = round((eyes + 4 * (nose - eyes)) * height)
    first = round((1 - share) * (len(shown.frames) - 1))
    frames = shown.frames.copy()
    frames[first:, chin:] = frames[first, chin:]
    return replace(shown, frames=frames)


def drifting(shown: Shown, levels: float) -> Shown:
    """Red grows and blue falls, by so many levels at the end."""
    slope = np.linspace(0, 1, len(shown.frames))[:, None, None, None] * np.array([levels, 0, -levels])
    return changed(shown, shown.frames + slope)


def jumping(shown: Shown, levels: float) -> Shown:
    """Every second frame is brighter."""
    return changed(shown, shown.frames + levels * (np.arange(len(shown.frames)) % 2)[:, None, None, None])


def squeezed(shown: Shown, percent: float) -> Shown:
    """All frames but the reference are narrower: another face, at the same place."""
    height, width = shown.frames.shape[1:3]
    scale = 1 + percent / 100
    matrix = np.array([[scale, 0, width / 2 * (1 - scale)], [0, 1, 0]])
    frames = [cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for frame in shown.frames]
    return replace(shown, frames=np.stack(frames))


@dataclass(frozen=True)
class Case:
    """A damage, its strengths from none on, and which way each metric has to go."""

    name: str
    damage: Damage
    strengths: tuple[float, ...]
    metrics: dict[str, int]  # 1: it rises, -1: it falls


CASES = (
    Case(
        "blur, % of the side", blurred, (0, 0.5, 1, 2),
        {"iqa": -1, "fid": 1, "kid": 1, "fvd": 1, "kvd": 1, "hkc": -1},
    ),
    Case(
        "noise, levels", noisy, (0, 4, 8, 16),
        {"noise": 1, "iqa": -1, "flicker": -1, "fid": 1, "fvd": 1},
    ),
    Case("JPEG, 100 - quality", blocky, (0, 50, 75, 90), {"blocks": 1, "fid": 1}),
    Case("sound late, frames", late, (0, 1, 2), {"mouth_and_loudness": -1}),
    Case("sound late, frames", late, (0, 5, 9), {"sync_c": -1}),
    Case("hands frozen, share", frozen_hands, (0, 0.4, 0.7, 1), {"hkv": -1, "hkv_in_shoulders": -1}),
    Case("flicker, levels", jumping, (0, 4, 8, 16), {"flicker": -1, "fvd": 1}),
    Case("face squeezed, %", squeezed, (0, 5, 10, 20), {"identity": -1}),
)  # fmt: skip
LONG_CASES = (Case("colour drift, levels", drifting, (0, 10, 20, 40), {"drift_colour": 1, "subject_consistency": -1}),)
"""For videos of several windows of drift."""
REAL_CASES = (
    replace(CASES[0], metrics={"iqa": -1}),
    replace(CASES[1], metrics={"noise": 1, "iqa": -1, "flicker": -1}),
    replace(CASES[2], metrics={"blocks": 1}),
    replace(CASES[4], strengths=(0, 9), metrics={"sync_c": -1}),
    replace(CASES[7], metrics={"identity": -1}),
)
"""Nine people are too few for distances between sets, and hands are found in drawn people alone."""


@dataclass(frozen=True)
class Row:
    """One metric under one damage."""

    case: Case
    metric: str
    direction: int
    figures: tuple[Figure, ...]

    @property
    def values(self) -> list[float]:
        """One per strength."""
        return [figure.estimate.value for figure in self.figures]

    @property
    def monotonic(self) -> bool:
        """Whether every further step of damage moved the figure the right way."""
        return all(self.direction * (after - before) > 0 for before, after in pairwise(self.values))

    @property
    def effect(self) -> float | None:
        """Mean change of the videos at the greatest strength over its deviation; None of a distance between sets."""
        first, last = self.figures[0].items, self.figures[-1].items
        if first is None or last is None:
            return None
        changes = np.array([last[item] - first[item] for item in first if item in last])
        return float(changes.mean() / max(changes.std(ddof=1), 1e-12))


def run(case: Case, people: Sequence[Shown]) -> list[Row]:
    """All metrics of a case on these videos; the undamaged ones are the real set."""
    metrics = make_metrics(case.metrics, Extractors())
    kept: list[list[list[Kept]]] = [[[] for _ in case.strengths] for _ in metrics]
    for shown in people:
        for number, strength in enumerate(case.strengths):
            damaged = case.damage(shown, strength) if strength else shown
            for own, metric in zip(kept, metrics, strict=True):
                if (values := metric.keep(damaged)) is not None:
                    own[number].append(Kept(shown.item, shown.person, values))
    return [
        Row(case, metric.name, direction, tuple(metric.figure(each, own[0], 0.95, 0) for each in own))
        for own, metric, direction in zip(kept, metrics, case.metrics.values(), strict=True)
    ]


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| damage | strengths | metric | n | should | figures | effect (floor) | monotonic |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        strengths = ", ".join(f"{strength:g}" for strength in row.case.strengths)
        values = ", ".join(f"{value:.3g}" for value in row.values)
        floor = row.figures[-1].floor
        effect = f"{row.effect:+.1f}" if row.effect is not None else "-" if floor is None else f"({floor:.3g})"
        count = min(figure.estimate.num_clips for figure in row.figures)
        cells = (
            row.case.name, strengths, f"`{row.metric}`", str(count), "rise" if row.direction > 0 else "fall", values,
            effect, "yes" if row.monotonic else "**no**",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_section(path: Path, body: str) -> None:
    """Replaces the section under `HEADING`, or adds it at the end."""
    text = path.read_text(encoding="utf-8")
    section = f"{HEADING}\n\n{body.strip()}\n"
    found = re.search(rf"^{re.escape(HEADING)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found:
        rest = text[found.end() :]
        text = text[: found.start()] + section + ("\n" + rest if rest else "")
    else:
        text = f"{text.rstrip()}\n\n{section}"
    path.write_text(text, encoding="utf-8")


def main(arguments: Iterable[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument(
        "--media", type=Path, default=Path("../shared/media/talk"), help="a folder of real talking heads"
    )
    parser.add_argument("--write", type=Path, help="a document whose section is replaced")
    args = parser.parse_args(None if arguments is None else list(arguments))
    cv2.setNumThreads(1)
    short = drawn_people(args.people, 96, 3.2, shots=("half body", "full body"))
    long = drawn_people(max(4, args.people // 2), 64, 9.4)
    rows = [row for case in tqdm(CASES, desc="drawn", file=sys.stderr) for row in run(case, short)]
    rows += [row for case in LONG_CASES for row in run(case, long)]
    told = f"{len(short)} drawn people (half and full bodies, 96 pixels, 3.2 s; {len(long)} of 9.4 s for drift):"
    parts = [INTRODUCTION, told, table(rows)]
    if args.media.is_dir():
        real = real_people(args.media, 160, 4.0)
        rows = [row for case in tqdm(REAL_CASES, desc="real", file=sys.stderr) for row in run(case, real)]
        parts += [f"{len(real)} real talking heads (160 pixels, 4 s):", table(rows)]
    print("\n\n".join(parts))
    if args.write:
        write_section(args.write, "\n\n".join(parts))


if __name__ == "__main__":
    main()
