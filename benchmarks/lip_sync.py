"""How well the stand-ins for SyncNet tell original sound from shifted and swapped sound, on real and on drawn people.

Real people: ../shared/media/talk in windows of 6 s. Each window's own sound is compared with the same track shifted by
8 to 40 frames either way and with other clips' sound; the figure is the area under the curve (AUC) over all windows,
its interval a bootstrap over clips. Who speaks on camera was judged by eye from frames and spectrograms, see `TALK`.
One clip is out of step in the file itself, judged from its frames beside the sound's loudness: the voice of lp_d20 is
about 7 frames late (lips pressed together through five frames of loud voice, open in the pause), so that a correct
scorer must not call it in step. Figures are given with and without it.

Drawn people: the demo's corpus with seed 31, on which nothing was developed.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from omnihuman.batch import Frames, Sound
from omnihuman.config.compose import compose
from omnihuman.data.scorers import lip_sync, tracked_lip_sync
from omnihuman.data.scorers.content import ClipContent
from omnihuman.data.scorers.lip_sync import measure_lip_sync
from omnihuman.data.scorers.mouth_track import mouth_patches
from omnihuman.data.scorers.tracked_lip_sync import measure_tracked_lip_sync
from omnihuman.data.sidecar import read_keypoints
from omnihuman.data.synthetic.corpus import write_clip
from omnihuman.data.synthetic.plan import ClipPlan, plan_corpus
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames

FPS, RATE, WINDOW = 25, 16000, 150
SHIFTS = tuple(sign * frames for frames in (8, 10, 12, 16, 20, 28, 40) for sign in (-1, 1))
NUM_RESAMPLES = 2000
DRAWN_SEED, NUM_FIT = 31, 36


@dataclass(frozen=True)
class Clip:
    """What was seen and heard in a file; frames outside `first`..`last` show no speaker."""

    judged: str  # speaks | sings | silent
    why: str
    first: int = 0
    last: int | None = None


TALK = {
    "latentsync_1": Clip("speaks", "a seated woman speaks to the camera; clean speech"),
    "latentsync_2": Clip("speaks", "a standing man speaks with pauses, and laughs; clean speech"),
    "lp_d11": Clip("speaks", "a girl recites in rhythm, turning her head; voice without music"),
    "lp_d20": Clip("speaks", "a man speaks out of doors; clean speech, 7 frames late in the file"),
    "moore_1": Clip("speaks", "a man speaks angrily; clean speech; from frame 255 on an end card", last=255),
    "moore_2": Clip("speaks", "a man lectures, music below; pictures begin at 8.3 s, flashes between takes", first=209),
    "lp_d10": Clip("sings", "a woman mouths a song with accompaniment"),
    "lp_d12": Clip("sings", "a man clowns to a song with accompaniment, leaving the picture"),
    "lp_d14": Clip("silent", "a woman makes faces with closed lips to music: nobody speaks, left out"),
}


@dataclass(frozen=True)
class Method:
    """A stand-in in its parts, so that one window's mouth is followed once for all sounds."""

    mouth: Callable[[ClipContent], np.ndarray]
    sound: Callable[[Sound, int, float], np.ndarray]
    compare: Callable[[np.ndarray, np.ndarray], tuple[float, int]]
    whole: Callable


def _tracked_mouth(content: ClipContent) -> np.ndarray:
    patches = mouth_patches(content.frames.pixels, content.grey, content.face)
    return tracked_lip_sync.without_drift(tracked_lip_sync.mouth_signals(patches))


def _without_drift(signal: np.ndarray) -> np.ndarray:
    return tracked_lip_sync.without_drift(signal[:, None])[:, 0]


METHODS = {
    "darkness": Method(
        lambda content: _without_drift(lip_sync.mouth_opening(content)),
        lambda *sound: _without_drift(lip_sync.sound_envelope(*sound)),
        lambda mouth, sound: lip_sync.confidence(lip_sync.lagged_correlations(mouth, sound)),
        measure_lip_sync,
    ),
    "tracked": Method(
        _tracked_mouth,
        lambda *sound: tracked_lip_sync.without_drift(tracked_lip_sync.sound_bands(*sound)),
        lambda mouth, sound: tracked_lip_sync.stand_out(tracked_lip_sync.canonical_correlations(mouth, sound)),
        measure_tracked_lip_sync,
    ),
}


@dataclass
class Answers:
    """Of one clip's windows."""

    original: list[float]
    offsets: list[int]
    shifted: list[float]
    swapped: list[float]


def load(path: Path, short_side: int, kept: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [F, H, W, 3] and samples of a clip; `kept` is a folder of what was decoded before."""
    file = kept / f"{path.stem}-{short_side}.npz" if kept else None
    if file and file.is_file():
        stored = np.load(file)
        return stored["pixels"], stored["sound"]
    pixels = read_frames(path, fps=FPS, short_side_pixels=short_side).pixels
    sound = read_sound(path, RATE, 0.0, len(pixels) / FPS)
    assert sound is not None, path
    if file:
        np.savez(file, pixels=pixels, sound=sound.samples)
    return pixels, sound.samples


def cut(samples: np.ndarray, first: int) -> Sound:
    """A window of sound from a frame on."""
    return Sound(samples[first * RATE // FPS : (first + WINDOW) * RATE // FPS], RATE)


def answers_of(
    method: Method, name: str, clips: dict[str, tuple[np.ndarray, np.ndarray]], step: int, others: list[str]
) -> Answers:
    """All windows of one clip with its own, shifted and other sound."""
    pixels, samples = clips[name]
    num_frames, found = len(pixels), Answers([], [], [], [])
    for first in range(TALK[name].first, num_frames - WINDOW + 1, step):
        frames = Frames(pixels[first : first + WINDOW], np.arange(WINDOW) / FPS)
        mouth = method.mouth(ClipContent(frames, None, None, WINDOW / FPS, FPS))

        def value(samples: np.ndarray, at: int, mouth: np.ndarray = mouth) -> tuple[float, int]:
            return method.compare(mouth, method.sound(cut(samples, at), WINDOW, FPS))

        confidence, offset = value(samples, first)
        found.original.append(confidence)
        found.offsets.append(offset)
        for shift in SHIFTS:
            if 0 <= first + shift <= len(samples) * FPS // RATE - WINDOW:
                found.shifted.append(value(samples, first + shift)[0])
        for other in others:
            if other != name:
                room = len(clips[other][1]) * FPS // RATE - WINDOW - TALK[other].first + 1
                found.swapped.append(value(clips[other][1], TALK[other].first + 7 * first % room)[0])
    return found


def wins(positive: list[float], negative: list[float]) -> float:
    """Pairs that are in the right order; ties count half."""
    difference = np.subtract.outer(positive, negative)
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum())


def auc(answers: list[Answers], negatives: Callable[[Answers], list[float]]) -> tuple[float, float, float]:
    """AUC over all windows, and the 95% interval of a bootstrap over clips."""
    won = np.array([[wins(a.original, negatives(b)) for b in answers] for a in answers])
    pairs = np.array([[len(a.original) * len(negatives(b)) for b in answers] for a in answers])
    random, values = np.random.default_rng(0), []
    for _ in range(NUM_RESAMPLES):
        drawn = random.integers(len(answers), size=len(answers))
        values.append(won[np.ix_(drawn, drawn)].sum() / pairs[np.ix_(drawn, drawn)].sum())
    low, high = np.percentile(values, [2.5, 97.5])
    return won.sum() / pairs.sum(), low, high


def talk(folder: Path, short_side: int, step: int, kept: Path | None) -> None:
    """The table of real people."""
    names = [name for name, clip in TALK.items() if clip.judged != "silent"]
    clips = {}
    for name in names:
        pixels, samples = load(folder / f"{name}.mp4", short_side, kept)
        last = TALK[name].last or len(pixels)
        clips[name] = pixels[:last], samples[: last * RATE // FPS]
    speaking = [name for name in names if TALK[name].judged == "speaks"]
    for key, method in METHODS.items():
        found = {name: answers_of(method, name, clips, step, names) for name in names}
        print(f"\n{key}, {short_side} pixels, windows of 6 s every {step / FPS:g} s")
        for name, each in found.items():
            area, *_ = auc([each], lambda a: a.shifted + a.swapped)
            near = np.mean(np.abs(each.offsets) <= 2)
            middle = np.median(each.offsets)
            print(
                f"  {name:13} {TALK[name].judged:7} {len(each.original):2} windows: AUC {area:.2f},"
                f" offset {middle:+.0f}, within 2 frames {near:.0%}; median {np.median(each.original):.1f} against"
                f" {np.median(each.shifted + each.swapped):.1f}"
            )
        groups = {
            "speaks": speaking,
            "speaks, file in step": [name for name in speaking if name != "lp_d20"],
            "speaks or sings": names,
        }
        for group, members in groups.items():
            chosen = [found[name] for name in members]
            for kind, negatives in (
                ("all", lambda a: a.shifted + a.swapped), ("shifted", lambda a: a.shifted),
                ("swapped", lambda a: a.swapped),
            ):  # fmt: skip
                area, low, high = auc(chosen, negatives)
                print(f"  {group}, {kind}: AUC {area:.3f} ({low:.2f} to {high:.2f} over {len(members)} clips)")
            own = [ok for each in chosen for ok in passing(key, each.original, each.offsets)]
            print(f"  {group}: policy {POLICIES[key]} keeps {np.mean(own):.0%} of the original windows")
            near = np.mean([abs(offset) <= 2 for each in chosen for offset in each.offsets])
            print(f"  {group}: offset within 2 frames in {near:.0%} of the windows")


def drawn_plans() -> Iterator[ClipPlan]:
    """Speakers as they are, and all clips with shifted or swapped sound."""
    corpus = compose("demo", []).collect.synthetic
    assert corpus is not None
    num_fit = 0
    for plan in plan_corpus(replace(corpus), DRAWN_SEED):
        if plan.defect in ("sound_shifted", "sound_swapped"):
            yield plan
        elif not plan.defect and plan.kind == "fit" and num_fit < NUM_FIT:
            num_fit += 1
            yield plan


def drawn() -> None:
    """The table of drawn people: area under the curve, and what the policies' thresholds catch."""
    rows: dict[str, list[tuple[str, float, float]]] = {key: [] for key in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        for plan in drawn_plans():
            write_clip(plan, videos, Path(folder) / "truth")
            path = videos / f"{plan.name}.mp4"
            frames = read_frames(path, fps=FPS, short_side_pixels=160)
            seconds = len(frames.pixels) / FPS
            pose = read_keypoints(videos / f"{plan.name}.keypoints.npz") if plan.has_keypoints else None
            content = ClipContent(frames, read_sound(path, RATE, 0.0, seconds), pose, seconds, FPS)
            for key, method in METHODS.items():
                confidence, offset = method.whole(content)
                rows[key].append((plan.defect, confidence.value, offset.value))
    for key, policy in (("darkness", "stand_in"), ("tracked", "real_people")):
        rules = compose("demo", [f"groups.policy={policy}"]).decide.rules
        least, most = rules["lips_follow"].at_least, rules["lips_in_time"].at_most
        assert least is not None and most is not None
        kept = [(defect, value >= least and abs(offset) <= most) for defect, value, offset in rows[key]]
        fit = [ok for defect, ok in kept if not defect]
        print(
            f"\n{key} on drawn people of seed {DRAWN_SEED}, policy {policy}: {np.mean(fit):.0%} of {len(fit)} fit kept"
        )
        for kind in ("sound_shifted", "sound_swapped"):
            caught = [not ok for defect, ok in kept if defect == kind]
            precision = sum(caught) / max(1, sum(caught) + len(fit) - sum(fit))
            positive = [value for defect, value, _ in rows[key] if not defect and value == value]
            negative = [value for defect, value, _ in rows[key] if defect == kind and value == value]
            area = wins(positive, negative) / (len(positive) * len(negative))
            print(f"  {kind}: recall {sum(caught)} of {len(caught)}, precision {precision:.2f}, AUC {area:.2f}")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("talk", "drawn", "all"), default="all")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "shared/media/talk")
    parser.add_argument("--short-side", type=int, default=320)
    parser.add_argument("--step", type=int, default=25, help="frames from window to window")
    parser.add_argument("--keep", type=Path, help="folder in which decoded clips are kept for the next call")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.part != "drawn":
        talk(arguments.folder, arguments.short_side, arguments.step, arguments.keep)
    if arguments.part != "talk":
        drawn()


if __name__ == "__main__":
    main()
