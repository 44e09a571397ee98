"""What every clip of the corpus shows and says; drawn once, before the clips are made in parallel."""

from dataclasses import dataclass, replace

import numpy as np

from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.data.synthetic.defects import DEFECTS
from omnihuman.data.synthetic.looks import Looks, draw_looks
from omnihuman.data.synthetic.scene import BACKGROUNDS, OUTDOORS, STYLES, WALLS
from omnihuman.data.synthetic.voice import Voice, draw_voice

FPS = (24, 25, 30)
SHOTS = {"face": 0.55, "half body": 0.35, "full body": 0.1}
ASPECTS = {"portrait": 3 / 4, "square": 1.0, "landscape": 4 / 3, "tall": 9 / 16, "wide": 16 / 9}
"""Width by height."""
FORMAT_SHARES = {
    "face": {"portrait": 0.35, "square": 0.3, "landscape": 0.25, "wide": 0.1},
    "half body": {"portrait": 0.3, "square": 0.25, "landscape": 0.25, "tall": 0.1, "wide": 0.1},
    "full body": {"portrait": 0.45, "square": 0.25, "tall": 0.3},
}
GESTURES = ("still", "wave left", "wave right", "raise left", "raise right", "spread")
MOVEMENTS = ("dance", "walk", "jump", "turn", "back", "stand")
"""Of unfit clips; fit ones stand."""
SHIFT_SECONDS = (0.3, 0.8)


@dataclass(frozen=True)
class Person:
    """Looks and voice of an identity."""

    name: str
    looks: Looks
    voice: Voice


@dataclass(frozen=True)
class Scene:
    """What stands before the camera."""

    shot: str
    background: str
    wall: str
    gesture: str
    movement: str = "stand"
    style: str = ""
    pans: bool = False


@dataclass(frozen=True)
class ClipPlan:
    """Everything that is decided about a clip before it is drawn."""

    name: str
    seed: tuple[int, int]
    person: Person
    kind: str  # fit | unfit
    defect: str  # empty, or one of DEFECTS
    fps: int
    num_frames: int
    format: str
    width: int
    height: int
    scenes: tuple[Scene, ...]  # two with a hard cut between them
    sound: str = "speech"  # speech | swapped | silent | music | narrator
    mouth: str = "speaks"  # speaks | closed | covered
    shift_seconds: float = 0.0  # by which the sound is late
    has_keypoints: bool = True

    @property
    def seconds(self) -> np.ndarray:
        """Time of every frame, float64 [F]."""
        return np.arange(self.num_frames) / self.fps


def plan_corpus(config: SyntheticCorpus, seed: int) -> list[ClipPlan]:
    """Draws the people, spreads defects and unfit clips over the corpus, and plans every clip."""
    num_clips = config.num_identities * config.clips_per_identity
    rng = np.random.default_rng([seed, num_clips])
    num_defective = round(config.defective_share * num_clips)
    num_unfit = round(config.unfit_share * (num_clips - num_defective))
    labels = [DEFECTS[index % len(DEFECTS)] for index in range(num_defective)]
    labels += ["unfit"] * num_unfit + [""] * (num_clips - num_defective - num_unfit)
    order = rng.permutation(num_clips)
    people = [_draw_person(seed, identity) for identity in range(config.num_identities)]
    plans = []
    for index in range(num_clips):
        person = people[index // config.clips_per_identity]
        label = labels[order[index]]
        name = f"{person.name}-clip-{index % config.clips_per_identity}"
        plans.append(_plan_clip(config, (seed, index), name, person, label))
    return plans


def _draw_person(seed: int, identity: int) -> Person:
    rng = np.random.default_rng([seed, 1, identity])
    looks = draw_looks(rng)
    return Person(f"person-{identity:04d}", looks, draw_voice(rng, looks.noun))


def _choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


def _plan_clip(config: SyntheticCorpus, seed: tuple[int, int], name: str, person: Person, label: str) -> ClipPlan:
    rng = np.random.default_rng([*seed, 2])
    shot = _choose(rng, SHOTS)
    layout = _choose(rng, FORMAT_SHARES[shot])
    short, aspect = config.short_side_pixels, ASPECTS[layout]
    width, height = (2 * round(side / 2) for side in (short * max(1, aspect), short * max(1, 1 / aspect)))
    fps = int(rng.choice(FPS))
    scene = Scene(shot, str(rng.choice(BACKGROUNDS)), str(rng.choice(list(WALLS))), str(rng.choice(GESTURES)))
    plan = ClipPlan(
        name=name,
        seed=seed,
        person=person,
        kind="unfit" if label == "unfit" else "fit",
        defect="" if label == "unfit" else label,
        fps=fps,
        num_frames=max(2, round(config.clip_seconds * rng.uniform(0.8, 1.2) * fps)),
        format=layout,
        width=width,
        height=height,
        scenes=(scene,),
    )
    if label == "unfit":
        return _make_unfit(rng, plan)
    return _make_defective(rng, plan) if label else plan


def _make_unfit(rng: np.random.Generator, plan: ClipPlan) -> ClipPlan:
    movement = str(rng.choice(MOVEMENTS))
    shot = plan.scenes[0].shot
    if movement in ("dance", "walk", "jump") and shot == "face":
        shot = "half body"
    outdoors = rng.random() < 0.75
    scene = replace(
        plan.scenes[0],
        shot=shot,
        movement=movement,
        background=str(rng.choice(OUTDOORS)) if outdoors else plan.scenes[0].background,
        style=str(rng.choice(STYLES)) if rng.random() < 0.6 else "",
        pans=bool(rng.random() < 0.35),
    )
    return replace(
        plan,
        scenes=(scene,),
        sound=str(rng.choice(["music", "narrator"])),
        mouth=str(rng.choice(["speaks", "closed", "covered"])),
        # Standing people declare a pose, in which the hands are behind the back.
        has_keypoints=movement == "stand",
    )


def _make_defective(rng: np.random.Generator, plan: ClipPlan) -> ClipPlan:
    scene = plan.scenes[0]
    if plan.defect == "sound_shifted":
        return replace(plan, shift_seconds=float(rng.choice([-1, 1]) * rng.uniform(*SHIFT_SECONDS)))
    if plan.defect in ("sound_swapped", "sound_silent"):
        return replace(plan, sound=plan.defect.removeprefix("sound_"))
    if plan.defect == "cut_inside":
        walls = [wall for wall in WALLS if wall != scene.wall]
        backgrounds = [name for name in BACKGROUNDS if name != scene.background]
        shot = "half body" if scene.shot == "face" else "face"
        other = Scene(shot, str(rng.choice(backgrounds)), str(rng.choice(walls)), str(rng.choice(GESTURES)))
        return replace(plan, scenes=(scene, other))
    return plan
