"""How a drawn person moves: a skeleton over time, in head heights with the head's resting place as origin."""

from dataclasses import dataclass

import numpy as np

from omnihuman.batch import KEYPOINTS

CHIN, SHOULDERS, HIPS, KNEES, ANKLES = 0.5, 0.8, 1.82, 2.62, 3.38
"""Heights below the middle of the head when standing."""
UPPER_ARM = 0.52
HIP_HALF_WIDTH = 0.25
SIDES = (1, -1)
"""The person's left is on the right of the picture."""

INDEX = {name: index for index, name in enumerate(KEYPOINTS)}


@dataclass(frozen=True)
class Motion:
    """Pose at every frame."""

    joints: np.ndarray  # float64 [F, 17, 2]
    head: np.ndarray  # float64 [F, 2], middle of the head
    head_roll: np.ndarray  # float64 [F], radians, clockwise
    yaw: np.ndarray  # float64 [F], radians; 0 looks at the camera, pi shows the back
    blink: np.ndarray  # float64 [F], 0 open .. 1 shut
    hands_hidden: bool  # behind the back


@dataclass(frozen=True)
class Room:
    """Where the wrists may go."""

    half_width: float  # head heights to either side
    rest_height: float  # of the wrists, below the middle of the head
    raised_height: float
    rest_half_width: float


@dataclass(frozen=True)
class Path:
    """The targets from which a skeleton is built, each float64 [F, 2] unless noted."""

    root: np.ndarray  # offset of the whole body
    lean: np.ndarray  # offset of the shoulders against the hips
    nod: np.ndarray  # offset of the head against the shoulders
    wrists: np.ndarray  # [2, F, 2], left and right, before `root` and `lean`
    ankles: np.ndarray  # [2, F, 2], offsets from standing


def wander(rng: np.random.Generator, seconds: np.ndarray, hertz: float, amplitude: float) -> np.ndarray:
    """A smooth random movement [F] within about +-amplitude."""
    rates = hertz * rng.uniform(0.5, 1.5, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    return amplitude / 2 * np.sin(2 * np.pi * rates * seconds[:, None] + phases).sum(axis=1)


def blinks(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """Eyelids [F] that shut for about 0.15 s every two seconds."""
    lids = np.zeros(len(seconds))
    moment = rng.uniform(0.2, 2.0)
    while moment < seconds[-1]:
        lids = np.maximum(lids, 1 - np.abs(seconds - moment) / 0.11)
        moment += rng.uniform(1.2, 3.2)
    return np.clip(1.6 * lids, 0, 1)


def eased(seconds: np.ndarray, key_seconds: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values [F, ...] that come to rest at every key."""
    right = np.clip(np.searchsorted(key_seconds, seconds, side="right"), 1, len(key_seconds) - 1)
    left = right - 1
    share = np.clip((seconds - key_seconds[left]) / (key_seconds[right] - key_seconds[left]), 0, 1)
    share = (share * share * (3 - 2 * share)).reshape(-1, *[1] * (values.ndim - 1))
    return values[left] * (1 - share) + values[right] * share


def gesturing_wrists(
    rng: np.random.Generator, seconds: np.ndarray, energy: np.ndarray, room: Room, gesture: str
) -> np.ndarray:
    """Wrists [2, F, 2], left first, that beat loosely with the energy [F] of the voice.

    Args:
        gesture: `still`, `spread`, or `wave` or `raise` with ` left` or ` right`.
    """
    kind, _, side_name = gesture.partition(" ")
    key_seconds = np.concatenate([[0.0], np.cumsum(rng.uniform(0.35, 0.75, int(seconds[-1] / 0.35) + 3))])
    wrists = []
    for side, name in zip(SIDES, ("left", "right"), strict=True):
        active = kind == "spread" or side_name == name
        lift = rng.uniform(0.55, 1.0, len(key_seconds)) if active else rng.uniform(0, 0.3, len(key_seconds))
        if kind == "spread":
            lift = 0.5 * lift * (np.arange(len(key_seconds)) % 2 == 1)
        outward = room.rest_half_width + (room.half_width - room.rest_half_width) * np.clip(
            lift * 1.3 + rng.uniform(-0.1, 0.1, len(key_seconds)), 0, 1
        )
        height = room.rest_height + (room.raised_height - room.rest_height) * lift
        track = eased(seconds, key_seconds, np.stack([side * outward, height], axis=1))
        track[:, 1] -= 0.12 * (room.rest_height - room.raised_height) * energy
        if active and kind == "wave":
            reach = min(0.16, 0.5 * (room.half_width - room.rest_half_width) + 0.05)
            track[:, 0] -= side * reach * (1 + np.sin(2 * np.pi * rng.uniform(1.8, 2.4) * seconds))
        wrists.append(track)
    return np.stack(wrists)


def standing(
    rng: np.random.Generator,
    seconds: np.ndarray,
    energy: np.ndarray,
    shoulders: float,
    wrists: np.ndarray,
    sway: float,
    hands_hidden: bool,
) -> Motion:
    """A person who stands and talks, with gentle movements of about `sway` head heights."""
    frames = len(seconds)
    root = np.stack([wander(rng, seconds, 0.35, sway), wander(rng, seconds, 0.3, 0.3 * sway)], axis=1)
    lean = np.stack([wander(rng, seconds, 0.5, 0.5 * sway), np.zeros(frames)], axis=1)
    nod = np.stack([wander(rng, seconds, 0.6, 0.5 * sway), wander(rng, seconds, 0.9, 0.4 * sway)], axis=1)
    nod[:, 1] += 0.3 * sway * energy
    path = Path(root, lean, nod, wrists, np.zeros((2, frames, 2)))
    yaw = wander(rng, seconds, 0.4, 0.12)
    return build_motion(path, shoulders, wander(rng, seconds, 0.4, 0.02), yaw, blinks(rng, seconds), hands_hidden)


def build_motion(
    path: Path, shoulders: float, roll: np.ndarray, yaw: np.ndarray, blink: np.ndarray, hands_hidden: bool = False
) -> Motion:
    """Joins the targets into a skeleton. The feet stay while the body sways, unless the root moves them."""
    joints = np.zeros((len(roll), len(KEYPOINTS), 2))
    chest = path.root + path.lean + [0, SHOULDERS]
    hips = 0.6 * path.root + [0, HIPS]
    head = path.root + path.lean + path.nod
    # A body seen from the side is narrower than from the front.
    breadth = (0.5 + 0.5 * np.abs(np.cos(yaw)))[:, None] * np.where(np.cos(yaw) < 0, -1, 1)[:, None]
    for index, (side, name) in enumerate(zip(SIDES, ("left", "right"), strict=True)):
        shoulder = chest + breadth * [side * shoulders, 0] + [0, 0.03]
        wrist = path.wrists[index] * [1, 1] + path.root + path.lean
        direction = 0.9 * (wrist - shoulder) + 0.6 * np.array([0.28 * side, 1])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        hip = hips + breadth * [side * HIP_HALF_WIDTH, 0]
        ankle = path.ankles[index] + breadth * [side * (HIP_HALF_WIDTH + 0.03), 0] + [0, ANKLES]
        joints[:, INDEX[f"{name}_shoulder"]] = shoulder
        joints[:, INDEX[f"{name}_elbow"]] = shoulder + UPPER_ARM * direction
        joints[:, INDEX[f"{name}_wrist"]] = wrist
        joints[:, INDEX[f"{name}_hip"]] = hip
        joints[:, INDEX[f"{name}_knee"]] = (hip + ankle) / 2 + knee_bend(hip, ankle, side)
        joints[:, INDEX[f"{name}_ankle"]] = ankle
    _place_face(joints, head, roll, yaw)
    return Motion(joints, head, roll, yaw, blink, hands_hidden)


def knee_bend(hip: np.ndarray, ankle: np.ndarray, side: int) -> np.ndarray:
    """How far a knee leaves the straight line [F, 2] when hip and ankle come closer than a straight leg."""
    slack = np.clip(ANKLES - HIPS - np.linalg.norm(ankle - hip, axis=1), 0, None)
    return np.stack([side * 0.5 * np.sqrt(slack), np.zeros(len(slack))], axis=1)


def _place_face(joints: np.ndarray, head: np.ndarray, roll: np.ndarray, yaw: np.ndarray) -> None:
    turn = feature_shift(yaw)
    for name, x, y, follows in (
        ("nose", 0.0, 0.08, 1.3),
        ("left_eye", 0.16, -0.07, 1.0),
        ("right_eye", -0.16, -0.07, 1.0),
        ("left_ear", 0.4, 0.0, -0.2),
        ("right_ear", -0.4, 0.0, -0.2),
    ):
        dx = x + follows * turn
        offset = [dx * np.cos(roll) - y * np.sin(roll), dx * np.sin(roll) + y * np.cos(roll)]
        joints[:, INDEX[name]] = head + np.stack(offset, axis=1)


def feature_shift(yaw: np.ndarray | float) -> np.ndarray | float:
    """How far eyes, nose and mouth move sideways when the head turns, in head heights."""
    return 0.16 * np.sin(yaw)
