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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from omnihuman.batch import Frames, Sound
from omnihuman.config.compose import compose
from omnihuman.data.scorers import lip_sync, tracked_lip_sync
from omnihuman.data.scorers.content import ClipContent, Measurement
from omnihuman.data.scorers.lip_sync import measure_lip_sync
from omnihuman.data.scorers.mouth_track import mouth_patches
from omnihuman.data.scorers.small_syncnet import heard, lag_similarities, measure_trained, seen
from omnihuman.data.scorers.tracked_lip_sync import measure_tracked_lip_sync, stand_out
from omnihuman.data.sidecar import read_keypoints
from omnihuman.data.synthetic.corpus import write_clip
from omnihuman.data.synthetic.plan import ClipPlan, plan_corpus
from omnihuman.encoders.small_syncnet import load_small_syncnet
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.storage.files import file_sha256

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
    whole: Callable[[ClipContent], tuple[Measurement, ...]]


def _tracked_mouth(content: ClipContent) -> np.ndarray:
    patches = mouth_patches(content.frames.pixels, content.grey, content.face)
    return lip_sync.without_drift(tracked_lip_sync.mouth_signals(patches))


METHODS = {
    "darkness": Method(
        lambda content: lip_sync.without_drift(lip_sync.mouth_opening(content)),
        lambda *sound: lip_sync.without_drift(lip_sync.sound_envelope(*sound)),
        lambda mouth, sound: lip_sync.confidence(lip_sync.lagged_correlations(mouth, sound)),
        measure_lip_sync,
    ),
    "tracked": Method(
        _tracked_mouth,
        lambda *sound: lip_sync.without_drift(tracked_lip_sync.sound_bands(*sound)),
        lambda mouth, sound: tracked_lip_sync.stand_out(tracked_lip_sync.canonical_correlations(mouth, sound)),
        measure_tracked_lip_sync,
    ),
}


POLICIES = {"darkness": "stand_in", "tracked": "real_people"}


def trained(weights: Path) -> Method:
    """The small SyncNet of a file of `omnihuman data train-syncnet`; it has no policy, as its threshold is its own."""
    network = load_small_syncnet(weights)
    return Method(
        partial(seen, network),
        lambda sound, num_frames, _: heard(network, sound, num_frames),
        lambda pictures, sounds: stand_out(lag_similarities(pictures, sounds)),
        partial(measure_trained, str(weights), file_sha256(weights)),
    )


@dataclass
class Answers:
    """Confidence and offset of one clip's windows."""

    original: list[tuple[float, int]]
    shifted: list[tuple[float, int]]
    swapped: list[tuple[float, int]]

    @property
    def offsets(self) -> np.ndarray:
        """Of the original sound."""
        return np.array([offset for _, offset in self.original])


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
    num_frames, found = len(pixels), Answers([], [], [])
    for first in range(TALK[name].first, num_frames - WINDOW + 1, step):
        frames = Frames(pixels[first : first + WINDOW], np.arange(WINDOW) / FPS)
        mouth = method.mouth(ClipContent(frames, None, None, WINDOW / FPS, FPS))

        def value(samples: np.ndarray, at: int, mouth: np.ndarray = mouth) -> tuple[float, int]:
            return method.compare(mouth, method.sound(cut(samples, at), WINDOW, FPS))

        found.original.append(value(samples, first))
        for shift in SHIFTS:
            if 0 <= first + shift <= len(samples) * FPS // RATE - WINDOW:
                found.shifted.append(value(samples, first + shift))
        for other in others:
            if other != name:
                room = len(clips[other][1]) * FPS // RATE - WINDOW - TALK[other].first + 1
                found.swapped.append(value(clips[other][1], TALK[other].first + 7 * first % room))
    return found


def wins(positive: list[tuple[float, int]], negative: list[tuple[float, int]]) -> float:
    """Pairs of confidences that are in the right order; ties count half."""
    difference = np.subtract.outer([value for value, _ in positive], [value for value, _ in negative])
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum())


def auc(answers: list[Answers], negatives: Callable[[Answers], list[tuple[float, int]]]) -> tuple[float, float, float]:
    """AUC over all windows, and the 95% interval of a bootstrap over clips."""
    won = np.array([[wins(a.original, negatives(b)) for b in answers] for a in answers])
    pairs = np.array([[len(a.original) * len(negatives(b)) for b in answers] for a in answers])
    random, values = np.random.default_rng(0), []
    for _ in range(NUM_RESAMPLES):
        drawn = random.integers(len(answers), size=len(answers))
        values.append(won[np.ix_(drawn, drawn)].sum() / pairs[np.ix_(drawn, drawn)].sum())
    low, high = np.percentile(values, [2.5, 97.5])
    return won.sum() / pairs.sum(), low, high


Pick = Callable[[Answers], list[tuple[float, int]]]
PICKS: tuple[Pick, ...] = (lambda each: each.original, lambda each: each.shifted, lambda each: each.swapped)
NEGATIVES: dict[str, Pick] = {"all": lambda each: each.shifted + each.swapped, "shifted": PICKS[1], "swapped": PICKS[2]}


def accepted(key: str, answers: list[tuple[float, int]]) -> np.ndarray:
    """Which answers the method's policy lets pass, bool [N]."""
    rules = compose("demo", [f"groups.policy={POLICIES[key]}"]).decide.rules
    least, most = rules["lips_follow"].at_least, rules["lips_in_time"].at_most
    assert least is not None and most is not None
    values, offsets = np.array(answers, np.float64).T
    return (values >= least) & (np.abs(offsets) <= most)


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
            area, *_ = auc([each], NEGATIVES["all"])
            near = np.mean(np.abs(each.offsets) <= 2)
            middle = np.median(each.offsets)
            own, other = (np.median(some, axis=0)[0] for some in (each.original, each.shifted + each.swapped))
            print(
                f"  {name:13} {TALK[name].judged:7} {len(each.original):2} windows: AUC {area:.2f},"
                f" offset {middle:+.0f}, within 2 frames {near:.0%}; median {own:.1f} against {other:.1f}"
            )
        groups = {
            "speaks": speaking,
            "speaks, file in step": [name for name in speaking if name != "lp_d20"],
            "speaks or sings": names,
        }
        for group, members in groups.items():
            chosen = [found[name] for name in members]
            for kind, negatives in NEGATIVES.items():
                area, low, high = auc(chosen, negatives)
                print(f"  {group}, {kind}: AUC {area:.3f} ({low:.2f} to {high:.2f} over {len(members)} clips)")
            near = np.mean(np.abs(np.concatenate([each.offsets for each in chosen])) <= 2)
            print(f"  {group}: offset within 2 frames in {near:.0%} of the windows")
            if key in POLICIES:
                shares = [accepted(key, [a for each in chosen for a in pick(each)]).mean() for pick in PICKS]
                print(
                    f"  {group}: policy {POLICIES[key]} accepts {shares[0]:.0%} with their own, {shares[1]:.0%} with"
                    f" shifted and {shares[2]:.0%} with swapped sound"
                )


def drawn_plans() -> Iterator[ClipPlan]:
    """Speakers as they are, and all clips with shifted or swapped sound."""
    corpus = compose("demo", []).collect.synthetic
    num_fit = 0
    for plan in plan_corpus(corpus, DRAWN_SEED):
        if plan.defect in ("sound_shifted", "sound_swapped"):
            yield plan
        elif not plan.defect and plan.kind == "fit" and num_fit < NUM_FIT:
            num_fit += 1
            yield plan


def drawn() -> None:
    """The table of drawn people: area under the curve, and what the policies' thresholds catch."""
    found: dict[str, dict[str, list[tuple[float, int]]]] = {key: {} for key in METHODS}
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
                # What is not measured is not accepted, either.
                answer = (np.nan_to_num(confidence.value, nan=-1.0), np.nan_to_num(offset.value, nan=99.0))
                found[key].setdefault(plan.defect, []).append(answer)
    for key, answers in found.items():
        print(f"\n{key} on {len(answers[''])} fit clips of drawn people of seed {DRAWN_SEED}")
        for kind in ("sound_shifted", "sound_swapped"):
            area = wins(answers[""], answers[kind]) / (len(answers[""]) * len(answers[kind]))
            print(f"  {kind}: AUC {area:.2f}")
            if key in POLICIES:
                fit, caught = accepted(key, answers[""]), ~accepted(key, answers[kind])
                precision = caught.sum() / max(1, caught.sum() + (~fit).sum())
                print(
                    f"  {kind}, policy {POLICIES[key]}: {fit.sum()} fit kept, recall {caught.sum()} of {len(caught)},"
                    f" precision {precision:.2f}"
                )


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("talk", "drawn", "all"), default="all")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "shared/media/talk")
    parser.add_argument("--short-side", type=int, default=160)
    parser.add_argument("--step", type=int, default=25, help="frames from window to window")
    parser.add_argument("--trained", type=Path, help="also the network of this file (omnihuman data train-syncnet)")
    parser.add_argument("--keep", type=Path, help="folder in which decoded clips are kept for the next call")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.trained:
        METHODS["trained"] = trained(arguments.trained)
    if arguments.part != "drawn" and not arguments.folder.is_dir():
        print(f"real people: left out, {arguments.folder} is not here")
    elif arguments.part != "drawn":
        talk(arguments.folder, arguments.short_side, arguments.step, arguments.keep)
    if arguments.part != "talk":
        drawn()


if __name__ == "__main__":
    main()
