"""Draws a head; the origin is its middle, the unit its height, from the crown at -0.5 to the chin at rest at 0.5."""

import numpy as np

from omnihuman.data.synthetic.canvas import CIRCLE, Canvas, Colour, mirrored, mix, shade, smooth
from omnihuman.data.synthetic.looks import Looks
from omnihuman.data.synthetic.motion import feature_shift

MOUTH_HEIGHT = 0.215
"""Of the line between the closed lips, below the middle of the head."""
MOUTH_INSIDE: Colour = (26, 8, 14)
UPPER_SHARE = 0.15
"""Share of the opening by which the upper lip rises; the lower lip and the jaw do the rest."""
JAW_SHARE = 0.42
"""How far the chin drops, of the opening."""


def draw_back_hair(canvas: Canvas, looks: Looks) -> None:
    """Draws what hangs behind neck and shoulders."""
    width, colour = looks.face_half_width, shade(looks.hair, 0.82)
    if looks.hair_style == "long":
        half = [(0.16, -0.56), (width + 0.06, -0.4), (width + 0.12, 0.1), (width + 0.1, 0.55), (width - 0.02, 0.86)]
    elif looks.hair_style == "bob":
        half = [(0.16, -0.56), (width + 0.07, -0.38), (width + 0.12, 0.1), (width + 0.08, 0.42), (width - 0.16, 0.46)]
    elif looks.hair_style == "curly":
        for angle in np.linspace(0, 2 * np.pi, 13, endpoint=False):
            centre = (1.16 * width * np.sin(angle), -0.12 - 0.42 * np.cos(angle))
            canvas.ellipse(centre, (0.19, 0.19), colour)
        return
    elif looks.hair_style == "ponytail":
        half = [(0.18, -0.5), (0.5, -0.3), (0.56, 0.1), (0.5, 0.5)]
        canvas.fill(smooth([*half, (0.42, 0.2), (0.36, -0.1)]), colour)
        return
    elif looks.hair_style == "bun":
        canvas.ellipse((0, -0.6), (0.17, 0.15), shade(looks.hair, 0.9))
        canvas.ellipse((-0.03, -0.63), (0.09, 0.07), shade(looks.hair, 1.12))
        return
    else:
        return
    canvas.fill(smooth(mirrored(half)), colour)


def draw_head(
    canvas: Canvas, looks: Looks, yaw: float, blink: float, opening: float, width: float, mask: Colour | None
) -> None:
    """Draws a head from the front or, where `yaw` turns it away, from the back.

    Args:
        opening: of the mouth, as share of the height of the head.
        width: of the mouth, as share of the width of the face.
        mask: colour of a mask that covers the mouth.
    """
    turn = float(feature_shift(yaw))
    if np.cos(yaw) < 0.1:
        _draw_from_behind(canvas, looks)
        return
    for side in (-1, 1):
        canvas.ellipse((side * (looks.face_half_width - 0.005) - 0.2 * turn, 0.02), (0.06, 0.1), shade(looks.skin, 0.9))
        canvas.ellipse((side * looks.face_half_width - 0.2 * turn, 0.02), (0.03, 0.06), shade(looks.skin, 0.76))
        if looks.earrings:
            canvas.ellipse((side * (looks.face_half_width + 0.015) - 0.2 * turn, 0.15), (0.028, 0.028), (240, 206, 96))
    face = face_outline(looks, JAW_SHARE * opening)
    canvas.fill(face, shade(looks.skin, 0.86))
    canvas.fill((face - [0, 0.05]) * [0.94, 0.97] + [-0.018, 0.04], looks.skin)
    if looks.beard:
        _draw_beard(canvas, looks, opening, turn)
    features = canvas.placed(np.array([turn, 0.0]))
    _draw_cheeks_and_nose(features, looks, turn)
    for side in (-1, 1):
        _draw_eye(features, looks, side, blink, opening)
    if mask is None:
        _draw_mouth(features, looks, opening, width * 2 * looks.face_half_width)
    else:
        _draw_mask(canvas, looks, mask, turn)
    _draw_front_hair(canvas, looks, 0.5 * turn)
    if looks.glasses:
        _draw_glasses(features, looks, turn)


def face_outline(looks: Looks, jaw_drop: float) -> np.ndarray:
    """Outline [N, 2] of the face with the chin `jaw_drop` below its resting place."""
    angle = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    x, y = np.sin(angle), -np.cos(angle)
    # Exponents below 1 make the ellipse fuller, as heads are.
    x = np.sign(x) * np.abs(x) ** 0.86
    low = np.clip(y, 0, 1)
    x = looks.face_half_width * x * (1 - looks.jaw_taper * low**2)
    return np.stack([x, np.where(y > 0, (0.5 + jaw_drop) * y, 0.5 * y)], axis=1)


def _draw_from_behind(canvas: Canvas, looks: Looks) -> None:
    face = face_outline(looks, 0.0)
    canvas.fill(face * [1.0, 0.94], shade(looks.skin, 0.9))
    colour = looks.hair if looks.hair_style != "bald" else looks.skin
    hair = face * [1.06, 0.92] + [0, -0.06]
    canvas.fill(hair, shade(colour, 0.86))
    canvas.fill(hair * [0.8, 0.86] + [-0.03, -0.02], colour)


def _draw_cheeks_and_nose(canvas: Canvas, looks: Looks, turn: float) -> None:
    blush = mix(looks.skin, (232, 110, 100), 0.2)
    for side in (-1, 1):
        canvas.ellipse((side * 0.235, 0.11), (0.085, 0.055), blush)
    size = looks.nose_size
    shadow = shade(looks.skin, 0.8)
    tip = 0.3 * turn
    canvas.fill(smooth([(0.0, -0.03), (0.03 + tip, 0.05), (0.062 * size + tip, 0.095), (tip, 0.115)]), shadow)
    canvas.ellipse((tip - 0.004, 0.078), (0.042 * size, 0.034 * size), shade(looks.skin, 1.05))


def _draw_eye(canvas: Canvas, looks: Looks, side: int, blink: float, opening: float) -> None:
    x, y, size = 0.16 * side, -0.07, looks.eye_size
    height = 0.06 * size * (1 - blink)
    line = mix(shade(looks.hair, 0.5), (30, 22, 24), 0.6)
    if height > 0.012:
        canvas.ellipse((x, y), (0.082 * size, height), (250, 250, 248))
        iris = min(0.05 * size, height * 1.05)
        canvas.ellipse((x, y), (0.05 * size, iris), looks.eyes)
        canvas.ellipse((x, y), (0.026 * size, min(0.026 * size, height)), (18, 16, 20))
        canvas.ellipse((x - 0.018, y - 0.4 * height), (0.014, 0.014), (255, 255, 255))
    arc = np.linspace(-1, 1, 6)
    lid = np.stack([x + 0.088 * size * arc, y - height * (1 - arc**2) + 0.004], axis=1)
    canvas.stroke(lid, 0.024 if looks.noun == "woman" else 0.017, line)
    if looks.noun == "woman":
        canvas.stroke([(x + side * 0.08 * size, y), (x + side * 0.112 * size, y - 0.028)], 0.018, line)
    lift = y - 0.125 - 0.08 * opening
    brow = np.stack([x + 0.1 * arc, lift + 0.022 * arc**2 + 0.008 * side * arc], axis=1)
    canvas.stroke(brow, looks.brow_width, mix(shade(looks.hair, 0.7), (40, 30, 30), 0.3))


def _draw_mouth(canvas: Canvas, looks: Looks, opening: float, width: float) -> None:
    half = width / 2
    top, bottom = MOUTH_HEIGHT - UPPER_SHARE * opening, MOUTH_HEIGHT + (1 - UPPER_SHARE) * opening
    middle = (top + bottom) / 2
    # Rounded lips are fuller than spread ones.
    full = (0.066 if looks.noun == "woman" else 0.056) - 0.07 * width
    x, y = CIRCLE.T
    corners = np.sign(y) * np.abs(y) ** (1.3 if opening < 0.05 else 1.0)
    thickness = np.where(y < 0, 1.0 - 0.35 * np.exp(-((x / 0.22) ** 2)), 1.25) * full
    lips = np.stack([(half + 0.016) * x, middle + opening / 2 * corners + thickness * corners], axis=1)
    canvas.fill(lips, looks.lips)
    canvas.ellipse(
        (-0.15 * half, bottom + 0.75 * full), (0.38 * half, 0.16 * full), mix(looks.lips, (255, 200, 200), 0.3)
    )
    if opening < 0.012:
        line = [(half * x, middle + 0.006 - 0.012 * x * x) for x in np.linspace(-0.92, 0.92, 7)]
        canvas.stroke(line, 0.016, shade(looks.lips, 0.45))
        return
    inner_half = 0.9 * half
    inside = np.stack([inner_half * np.sign(x) * np.abs(x) ** 0.85, middle + opening / 2 * y], axis=1)
    canvas.fill(inside, MOUTH_INSIDE)
    if opening > 0.09:
        canvas.ellipse((0, bottom - 0.13 * opening), (0.5 * inner_half, 0.12 * opening), (78, 18, 26))


def _draw_beard(canvas: Canvas, looks: Looks, opening: float, turn: float) -> None:
    colour = mix(looks.skin, shade(looks.hair, 0.75), 0.62)
    face = face_outline(looks, JAW_SHARE * opening)
    low = face[face[:, 1] > 0.04]
    rim = [(-looks.face_half_width * 0.84, 0.12), (-0.22 + turn, 0.16), (turn, 0.135), (0.22 + turn, 0.16)]
    canvas.fill(np.concatenate([low * [1.0, 1.02], rim, [(looks.face_half_width * 0.84, 0.12)]]), colour)


def _draw_mask(canvas: Canvas, looks: Looks, colour: Colour, turn: float) -> None:
    width = looks.face_half_width
    half = [(0.02, 0.02), (0.2, 0.05), (width * 0.96, 0.1), (width * 0.84, 0.36), (0.16, 0.53)]
    canvas.fill(smooth(mirrored(half)) + np.array((0.3 * turn, 0.0)), colour)
    for height in (0.2, 0.3, 0.4):
        canvas.stroke([(-0.2 + turn, height), (0.2 + turn, height)], 0.012, shade(colour, 0.86))


def _draw_front_hair(canvas: Canvas, looks: Looks, shift: float) -> None:
    width, colour = looks.face_half_width, looks.hair
    crown = face_outline(looks, 0.0)
    cap = crown[crown[:, 1] < -0.02] * [1.07, 1.1]
    order = np.argsort(np.arctan2(cap[:, 0], -cap[:, 1]))
    cap = cap[order]
    fringe = {
        "long": [(0.8, -0.12), (0.42, -0.27), (0.1, -0.38), (-0.4, -0.27), (-0.8, -0.1)],
        "bob": [(0.86, -0.16), (0.5, -0.23), (0.0, -0.25), (-0.5, -0.23), (-0.86, -0.16)],
        "curly": [(0.82, -0.2), (0.5, -0.3), (0.1, -0.26), (-0.3, -0.32), (-0.82, -0.2)],
        "bun": [(0.86, -0.2), (0.5, -0.37), (0.0, -0.41), (-0.5, -0.37), (-0.86, -0.2)],
        "short": [(0.88, -0.14), (0.6, -0.3), (0.1, -0.29), (-0.4, -0.35), (-0.88, -0.14)],
        "ponytail": [(0.86, -0.16), (0.5, -0.34), (-0.1, -0.38), (-0.55, -0.3), (-0.86, -0.16)],
        "quiff": [(0.88, -0.14), (0.68, -0.33), (0.1, -0.36), (-0.6, -0.34), (-0.88, -0.14)],
        "parted": [(0.88, -0.14), (0.7, -0.32), (0.3, -0.4), (-0.5, -0.26), (-0.88, -0.12)],
        "buzzed": [(0.9, -0.16), (0.66, -0.34), (0.0, -0.38), (-0.66, -0.34), (-0.9, -0.16)],
    }.get(looks.hair_style)
    if fringe is None:
        canvas.ellipse((-0.14, -0.36), (0.1, 0.05), shade(looks.skin, 1.08))
    else:
        if looks.hair_style == "buzzed":
            cap, colour = cap * [0.97, 0.94], mix(looks.hair, looks.skin, 0.25)
        line = np.array(fringe) * [width, 1] + [shift, 0]
        canvas.fill(np.concatenate([cap, line]), colour)
        if looks.hair_style == "quiff":
            canvas.fill(smooth([(-0.3, -0.42), (-0.2, -0.62), (0.1, -0.68), (0.34, -0.56), (0.34, -0.4)]), colour)
        if looks.hair_style == "curly":
            for x in np.linspace(-0.9, 0.9, 6):
                canvas.ellipse((x * width + shift, -0.36 - 0.1 * np.cos(1.5 * x)), (0.11, 0.1), colour)
        angle = np.linspace(-0.75, 0.1, 9)
        shine = np.stack([0.92 * width * np.sin(angle) + shift, -0.49 * np.cos(angle)], axis=1)
        canvas.stroke(shine, 0.03, mix(colour, (255, 255, 255), 0.22))
    if looks.beanie:
        _draw_beanie(canvas, looks, cap)


def _draw_beanie(canvas: Canvas, looks: Looks, cap: np.ndarray) -> None:
    width = looks.face_half_width * 1.1
    canvas.fill(cap[cap[:, 1] < -0.2] * [1.06, 1.12], shade(looks.top, 0.8))
    band = [(-width, -0.36), (width, -0.36), (width * 1.02, -0.24), (-width * 1.02, -0.24)]
    canvas.fill(np.array(band), shade(looks.top, 0.62))


def _draw_glasses(canvas: Canvas, looks: Looks, turn: float) -> None:
    frame: Colour = (36, 32, 40)
    angle = np.linspace(0, 2 * np.pi, 15)
    for side in (-1, 1):
        rim = np.stack([0.16 * side + 0.122 * np.cos(angle), -0.06 + 0.1 * np.sin(angle)], axis=1)
        canvas.stroke(rim, 0.018, frame)
        canvas.stroke([(side * 0.28, -0.08), (side * looks.face_half_width - 1.2 * turn, -0.06)], 0.018, frame)
    canvas.stroke([(-0.045, -0.08), (0.045, -0.08)], 0.018, frame)
