"""Draws a whole person from skeleton, looks and mouth."""

import numpy as np

from omnihuman.data.synthetic.canvas import Canvas, Colour, mix, shade, smooth
from omnihuman.data.synthetic.head import draw_back_hair, draw_head
from omnihuman.data.synthetic.looks import Looks
from omnihuman.data.synthetic.motion import INDEX, Motion

FINGER_ANGLES = (-0.42, -0.14, 0.14, 0.42)


def draw_person(
    canvas: Canvas, looks: Looks, motion: Motion, frame: int, opening: float, width: float, mask: Colour | None = None
) -> None:
    """Draws one frame; `opening` and `width` of the mouth are shares of the face's height and width."""
    joints = {name: motion.joints[frame, index] for name, index in INDEX.items()}
    yaw = float(motion.yaw[frame])
    away = np.cos(yaw) < 0.1
    head = canvas.placed(motion.head[frame], float(motion.head_roll[frame]))
    if not away:
        draw_back_hair(head, looks)
    if motion.hands_hidden or away:
        _draw_arms(canvas, looks, joints)
    if canvas.to_pixels(joints["left_hip"])[1] < 1.3 * canvas.pixels.shape[0]:
        _draw_legs(canvas, looks, joints)
    _draw_torso(canvas, looks, joints, motion.head[frame], away)
    draw_head(head, looks, yaw, float(motion.blink[frame]), opening, width, mask)
    if away:
        draw_back_hair(head, looks)
    elif not motion.hands_hidden:
        _draw_arms(canvas, looks, joints)


def _beside(point: np.ndarray, x: float, y: float) -> np.ndarray:
    return point + np.array((x, y))


def _draw_legs(canvas: Canvas, looks: Looks, joints: dict[str, np.ndarray]) -> None:
    for name, light in (("left", 0.86), ("right", 1.0)):
        hip, knee, ankle = (joints[f"{name}_{part}"] for part in ("hip", "knee", "ankle"))
        colour = shade(looks.trousers, light)
        side = 1 if name == "left" else -1
        canvas.fill(smooth([ankle + p for p in _SHOE * [side, 1]]), shade(looks.shoes, light))
        canvas.limb(hip, knee, (0.19, 0.145), colour)
        canvas.limb(knee, ankle, (0.145, 0.1), colour)
        canvas.limb(hip - [0.05, 0], knee - [0.04, 0], (0.05, 0.035), mix(colour, (255, 255, 255), 0.08))


_SHOE = np.array([(-0.1, -0.02), (0.06, -0.05), (0.2, 0.08), (0.2, 0.14), (-0.1, 0.14)])


def _draw_torso(canvas: Canvas, looks: Looks, joints: dict[str, np.ndarray], head: np.ndarray, away: bool) -> None:
    left, right = joints["left_shoulder"], joints["right_shoulder"]
    if left[0] < right[0]:
        left, right = right, left
    hip_left, hip_right = sorted((joints["left_hip"], joints["right_hip"]), key=lambda p: -p[0])
    middle = (left + right) / 2
    hips = (hip_left + hip_right) / 2
    waist = 0.5 * middle + 0.5 * hips
    half = (left - right)[0] / 2
    body = smooth(
        [
            _beside(middle, 0.0, -0.13),
            _beside(middle, 0.24, -0.13),
            _beside(left, 0.0, -0.09),
            _beside(left, 0.1, 0.12),
            _beside(waist, 0.82 * half, 0.0),
            _beside(hip_left, 0.17, 0.06),
            _beside(hips, 0, 0.1),
            _beside(hip_right, -0.17, 0.06),
            _beside(waist, -0.82 * half, 0.0),
            _beside(right, -0.1, 0.12),
            _beside(right, 0.0, -0.09),
            _beside(middle, -0.24, -0.13),
        ]
    )
    canvas.fill(body, shade(looks.top, 0.82))
    canvas.fill((body - waist) * [0.86, 0.97] + _beside(waist, -0.05, 0.0), looks.top)
    neck = _beside(head, 0, 0.36)
    canvas.limb(neck, _beside(middle, 0, -0.12), (0.145, 0.17), shade(looks.skin, 0.78))
    if away:
        return
    _draw_collar(canvas, looks, middle)
    if looks.top_style == "jacket":
        inner = mix(looks.top, (250, 248, 240), 0.8)
        canvas.fill(
            np.array(
                [
                    _beside(middle, -0.17, -0.1),
                    _beside(middle, 0.17, -0.1),
                    _beside(hips, 0.05, 0.1),
                    _beside(hips, -0.05, 0.1),
                ]
            ),
            inner,
        )
        canvas.ellipse((middle[0], middle[1] - 0.12), (0.15, 0.1), shade(looks.skin, 0.84))
        for side in (-1, 1):
            lapel = [(0.13, -0.16), (0.26, -0.1), (0.22, 0.22), (0.03, 0.5)]
            canvas.fill(middle + np.array(lapel) * [side, 1], shade(looks.top, 0.72))
    elif looks.top_style == "shirt":
        canvas.stroke([_beside(middle, 0, 0.02), _beside(hips, 0, 0.04)], 0.018, shade(looks.top, 0.68))
        for share in (0.15, 0.4, 0.65):
            button = middle * (1 - share) + hips * share
            canvas.ellipse((button[0] + 0.03, button[1]), (0.016, 0.016), shade(looks.top, 0.55))


def _draw_collar(canvas: Canvas, looks: Looks, middle: np.ndarray) -> None:
    x, y = middle
    if looks.top_style == "jumper":
        canvas.ellipse((x, y - 0.1), (0.24, 0.1), shade(looks.top, 0.7))
        canvas.ellipse((x, y - 0.13), (0.19, 0.08), shade(looks.skin, 0.84))
    elif looks.top_style == "t-shirt":
        canvas.ellipse((x, y - 0.1), (0.23, 0.12), shade(looks.top, 0.74))
        canvas.ellipse((x, y - 0.13), (0.2, 0.11), shade(looks.skin, 0.86))
    elif looks.top_style == "shirt":
        canvas.fill(np.array([(x - 0.18, y - 0.15), (x + 0.18, y - 0.15), (x, y + 0.08)]), shade(looks.skin, 0.86))
        for side in (-1, 1):
            flap = [(0.0, 0.09), (0.2, -0.17), (0.3, -0.08), (0.17, 0.11)]
            canvas.fill(middle + np.array(flap) * [side, 1], mix(looks.top, (255, 255, 255), 0.25))


def _draw_arms(canvas: Canvas, looks: Looks, joints: dict[str, np.ndarray]) -> None:
    for name, light in (("left", 0.9), ("right", 1.04)):
        shoulder, elbow, wrist = (joints[f"{name}_{part}"] for part in ("shoulder", "elbow", "wrist"))
        sleeve = shade(looks.top, light)
        short = looks.top_style == "t-shirt"
        if short:
            canvas.limb(shoulder, elbow, (0.12, 0.085), shade(looks.skin, 0.94))
            canvas.limb(elbow, wrist, (0.085, 0.062), shade(looks.skin, 0.96))
            canvas.limb(shoulder, shoulder * 0.45 + elbow * 0.55, (0.15, 0.13), sleeve)
        else:
            cuff = elbow * 0.25 + wrist * 0.75
            canvas.limb(cuff, wrist, (0.07, 0.062), looks.skin)
            canvas.limb(shoulder, elbow, (0.13, 0.11), shade(sleeve, 0.94))
            canvas.limb(elbow, cuff, (0.115, 0.088), sleeve)
            canvas.limb(elbow * 0.1 + cuff * 0.9, cuff, (0.09, 0.09), shade(sleeve, 0.8))
        _draw_hand(canvas, looks, elbow, wrist, 1 if name == "left" else -1)


def _draw_hand(canvas: Canvas, looks: Looks, elbow: np.ndarray, wrist: np.ndarray, side: int) -> None:
    along = (wrist - elbow) / (np.linalg.norm(wrist - elbow) + 1e-9)
    hand = canvas.placed(wrist, float(np.arctan2(along[0], -along[1])), (side, 1.0))
    dark = shade(looks.skin, 0.86)
    hand.limb(np.array([-0.02, -0.04]), np.array([-0.11, -0.12]), (0.036, 0.028), dark)
    for index, angle in enumerate(FINGER_ANGLES):
        base = np.array([0.09 * np.sin(angle * 1.4), -0.12])
        length = (0.1, 0.125, 0.12, 0.095)[index]
        tip = base + length * np.array([np.sin(0.8 * angle), -np.cos(0.8 * angle)])
        hand.limb(base, tip, (0.03, 0.025), shade(looks.skin, (0.93, 1.0)[index % 2]))
    hand.limb(np.array([0.0, 0.0]), np.array([0.0, -0.1]), (0.064, 0.082), looks.skin)
