"""Motions of whole bodies that only clips unfit for sound and pose contain."""

import numpy as np

from omnihuman.data.synthetic.motion import HIPS, Motion, Path, blinks, build_motion, wander


def move(rng: np.random.Generator, seconds: np.ndarray, movement: str, shoulders: float, half_width: float) -> Motion:
    """Moves a person by one of `plan.MOVEMENTS` but standing.

    Args:
        half_width: of the picture, in head heights.
    """
    frames = len(seconds)
    zeros = np.zeros(frames)
    beat = 2 * np.pi * rng.uniform(1.0, 1.5) * seconds + rng.uniform(0, 2 * np.pi)
    root, lean, nod = np.zeros((frames, 2)), np.zeros((frames, 2)), np.zeros((frames, 2))
    wrists = np.stack([np.stack([side * 0.6 + zeros, 1.6 + zeros], axis=1) for side in (1, -1)])
    ankles = np.zeros((2, frames, 2))
    yaw, roll = wander(rng, seconds, 0.4, 0.3), wander(rng, seconds, 0.4, 0.06)
    if movement == "dance":
        root = np.stack([0.16 * np.sin(beat), 0.06 * np.abs(np.cos(beat))], axis=1)
        lean[:, 0] = -0.12 * np.sin(beat + 0.6)
        roll = 0.16 * np.sin(beat)
        wrists = np.stack([_circling(beat, 1), _circling(beat + np.pi, -1)])
    elif movement == "walk":
        far = rng.choice([-1, 1]) * max(0.3, half_width - 0.55)
        root[:, 0] = far * np.linspace(-1, 1, frames)
        root[:, 1] = 0.04 * np.abs(np.sin(2 * beat))
        wrists[:, :, 0] += 0.16 * np.sin(beat)
        ankles[0] = np.stack([root[:, 0] + 0.22 * np.sin(beat), -0.12 * np.clip(np.cos(beat), 0, 1)], axis=1)
        ankles[1] = np.stack([root[:, 0] - 0.22 * np.sin(beat), -0.12 * np.clip(-np.cos(beat), 0, 1)], axis=1)
    elif movement == "jump":
        height = np.abs(np.sin(beat / 1.4))
        root[:, 1] = 0.16 - 0.4 * height
        wrists[:, :, 1] -= 1.1 * height
        wrists[:, :, 0] *= (1 + 0.25 * height)[None]
        ankles[:, :, 1] = -0.28 * np.clip(height - 0.4, 0, None)
    elif movement == "turn":
        yaw = np.pi * np.clip(1.4 * seconds / seconds[-1] - 0.2, 0, 1) * rng.choice([-1, 1])
        root[:, 0] = wander(rng, seconds, 0.6, 0.08)
    else:
        yaw = np.pi + wander(rng, seconds, 0.4, 0.3)
        root = np.stack([wander(rng, seconds, 0.7, 0.12), wander(rng, seconds, 0.9, 0.05)], axis=1)
    return build_motion(Path(root, lean, nod, wrists, ankles), shoulders, roll, yaw, blinks(rng, seconds))


def _circling(phase: np.ndarray, side: int) -> np.ndarray:
    return np.stack([side * (0.72 + 0.14 * np.cos(phase)), 0.5 * HIPS + 0.34 * np.sin(phase)], axis=1)
