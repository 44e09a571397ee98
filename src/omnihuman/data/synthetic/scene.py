"""Backgrounds, light and styles around a drawn person."""

from collections.abc import Callable

import cv2
import numpy as np

from omnihuman.data.synthetic.canvas import Colour, mix, shade

WALLS: dict[str, Colour] = {
    "blue": (150, 182, 208),
    "green": (162, 194, 164),
    "sand": (226, 208, 174),
    "grey": (184, 188, 196),
    "lilac": (190, 178, 212),
    "teal": (118, 172, 172),
    "dark blue": (62, 80, 116),
    "cream": (240, 228, 204),
}
BACKGROUNDS = ("plain", "striped", "panelled", "dotted", "tiled", "bookshelf", "window", "pictures", "curtain")
OUTDOORS = ("forest", "beach", "city", "mountains")
STYLES = ("sketch", "night", "sepia", "pastel")


def describe_background(name: str, wall: str) -> str:
    """How a caption names a background."""
    phrases = {
        "bookshelf": "in front of a bookshelf",
        "window": f"beside a window in a {wall} room",
        "pictures": f"in front of a {wall} wall with pictures",
        "curtain": f"in front of a {wall} curtain",
        "forest": "in a forest",
        "beach": "on a beach",
        "city": "in front of city lights",
        "mountains": "in front of mountains",
    }
    return phrases.get(name, f"in front of a {name} {wall} wall")


def draw_background(rng: np.random.Generator, name: str, wall: str, width: int, height: int) -> np.ndarray:
    """Draws a background, uint8 [height, width, 3]."""
    colour = WALLS[wall]
    unit = min(width, height)
    image = _gradient(shade(colour, 1.08), shade(colour, 0.84), width, height)
    painter = _PAINTERS.get(name)
    if painter is not None:
        painter(rng, image, colour, unit)
    # The lens is focused on the person.
    return cv2.GaussianBlur(image, (0, 0), 0.004 * unit)


def light_map(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Light from above on one side with darker corners, uint8 [height, width, 3], 255 unchanged."""
    y, x = np.mgrid[0:height, 0:width]
    x, y = x / width - 0.5, y / height - 0.5
    light = 1.0 - 0.16 * (x * rng.choice([-1, 1]) * 0.8 + y) - 0.35 * (x**2 + y**2)
    warm = rng.uniform(-0.03, 0.03)
    colours = np.stack([light * (1 + warm), light, light * (1 - warm)], axis=-1)
    return np.clip(colours / colours.max() * 255, 0, 255).astype(np.uint8)


def apply_style(image: np.ndarray, style: str) -> np.ndarray:
    """Repaints a picture, uint8 [H, W, 3], in one of STYLES."""
    if style == "sketch":
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 0.7).astype(np.float32)
        edges = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        paper = np.clip(250 - 0.6 * edges - 0.18 * (255 - grey), 0, 255)
        return np.repeat(paper[..., None], 3, axis=2).astype(np.uint8)
    if style == "pastel":
        flat = cv2.bilateralFilter(image, 5, 50, 3)
        return (84 + (flat // 40 * 40).astype(np.float32) * 0.7).astype(np.uint8)
    matrix = {
        "night": np.array([[0.28, 0.36, 0.12], [0.26, 0.52, 0.18], [0.3, 0.6, 0.5]]),
        "sepia": np.array([[0.39, 0.72, 0.18], [0.33, 0.62, 0.16], [0.25, 0.47, 0.13]]),
    }[style]
    return cv2.transform(image, matrix)


def _gradient(top: Colour, bottom: Colour, width: int, height: int) -> np.ndarray:
    share = np.linspace(0, 1, height)[:, None, None]
    rows = (1 - share) * np.array(top) + share * np.array(bottom)
    return np.ascontiguousarray(np.broadcast_to(rows, (height, width, 3)).astype(np.uint8))


def _box(image: np.ndarray, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    cv2.rectangle(image, (round(x), round(y)), (round(x + width), round(y + height)), colour, -1, cv2.LINE_AA)


def _striped(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    step = unit * rng.uniform(0.12, 0.22)
    for x in np.arange(rng.uniform(0, step) - step, image.shape[1], step):
        _box(image, x, 0, 0.45 * step, image.shape[0], shade(colour, 0.78))


def _panelled(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    step = unit * rng.uniform(0.34, 0.5)
    for x in np.arange(rng.uniform(0, step) - step, image.shape[1], step):
        for y in np.arange(-0.1 * step, image.shape[0], 1.3 * step):
            _box(image, x + 0.08 * step, y + 0.1 * step, 0.84 * step, 1.1 * step, shade(colour, 0.8))
            _box(image, x + 0.11 * step, y + 0.13 * step, 0.79 * step, 1.05 * step, shade(colour, 0.96))


def _dotted(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    step = unit * rng.uniform(0.12, 0.18)
    for row, y in enumerate(np.arange(0, image.shape[0] + step, step)):
        for x in np.arange(0, image.shape[1] + step, step):
            centre = (round(x + step / 2 * (row % 2)), round(y))
            cv2.circle(image, centre, round(0.2 * step), mix(colour, (255, 255, 255), 0.5), -1, cv2.LINE_AA)


def _tiled(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    step = unit * rng.uniform(0.16, 0.24)
    for row, y in enumerate(np.arange(0, image.shape[0] + step, 0.5 * step)):
        for x in np.arange(-step, image.shape[1] + step, step):
            tone = shade(colour, rng.uniform(0.82, 1.04))
            _box(image, x + step / 2 * (row % 2) + 1, y + 1, step - 2, 0.5 * step - 2, tone)


def _bookshelf(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    image[:] = (92, 66, 48)
    step = unit * 0.34
    covers: list[Colour] = [
        (120, 70, 60),
        (70, 96, 110),
        (170, 142, 96),
        (84, 108, 78),
        (110, 90, 120),
        (190, 176, 150),
    ]
    for y in np.arange(-0.2 * step, image.shape[0], step):
        _box(image, 0, y + 0.1 * step, image.shape[1], 0.8 * step, (60, 44, 36))
        x = 0.0
        while x < image.shape[1]:
            wide, tall = unit * rng.uniform(0.03, 0.07), step * rng.uniform(0.55, 0.76)
            if rng.random() < 0.88:
                _box(image, x, y + 0.9 * step - tall, wide - 1, tall, covers[int(rng.integers(len(covers)))])
            x += wide


def _window(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    wide, tall = 0.5 * unit, 0.62 * unit
    x, y = rng.choice([-0.08 * unit, image.shape[1] - 0.42 * unit]), 0.06 * unit
    _box(image, x, y, wide, tall, (246, 244, 238))
    for i in range(2):
        for j in range(2):
            pane = (x + wide * (0.06 + 0.48 * i), y + tall * (0.05 + 0.48 * j))
            _box(image, *pane, 0.4 * wide, 0.42 * tall, (176 + 24 * j, 214 + 10 * j, 236))
    _box(image, x - 0.03 * unit, y + tall, wide + 0.06 * unit, 0.04 * unit, (228, 224, 214))


def _pictures(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    for x in np.arange(0.02 * unit, image.shape[1], 0.36 * unit):
        y, wide, tall = unit * rng.uniform(0.05, 0.3), unit * rng.uniform(0.18, 0.27), unit * rng.uniform(0.18, 0.32)
        _box(image, x, y, wide, tall, (74, 58, 48))
        inner = (x + 0.02 * unit, y + 0.02 * unit, wide - 0.04 * unit, tall - 0.04 * unit)
        _box(image, *inner, (238, 232, 218))
        tone = WALLS[str(rng.choice(list(WALLS)))]
        cv2.circle(image, (round(x + wide / 2), round(y + tall / 2)), round(0.3 * wide), tone, -1, cv2.LINE_AA)


def _curtain(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    x = np.arange(image.shape[1]) / unit
    folds = 0.9 + 0.13 * np.sin(2 * np.pi * (rng.uniform(5, 7) * x + 0.2 * np.sin(7 * x)))
    image[:] = np.clip(image * folds[None, :, None], 0, 255).astype(np.uint8)


def _forest(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    height, width = image.shape[:2]
    image[:] = _gradient((206, 226, 178), (96, 130, 78), width, height)
    for depth in (0.45, 0.75, 1.0):
        for _ in range(6):
            x, wide = rng.uniform(0, width), unit * 0.05 * depth * rng.uniform(0.8, 1.5)
            _box(image, x, 0, wide, height * (0.6 + 0.3 * depth), shade((120, 100, 80), 1.25 - 0.5 * depth))
            crown = (round(x + wide / 2), round(height * rng.uniform(-0.05, 0.3)))
            cv2.circle(image, crown, round(unit * 0.2), shade((98, 148, 84), 1.3 - 0.5 * depth), -1, cv2.LINE_AA)


def _beach(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    height, width = image.shape[:2]
    image[:] = _gradient((120, 190, 236), (214, 236, 244), width, height)
    cv2.circle(image, (round(width * rng.uniform(0.1, 0.9)), round(0.16 * height)), unit // 10, (255, 238, 170), -1, 16)
    _box(image, 0, 0.5 * height, width, 0.2 * height, (52, 138, 176))
    for y in (0.54, 0.59, 0.65):
        _box(image, rng.uniform(0, 0.5) * width, y * height, 0.4 * width, 0.012 * height, (170, 214, 226))
    _box(image, 0, 0.69 * height, width, 0.32 * height, (236, 212, 160))


def _city(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    height, width = image.shape[:2]
    image[:] = _gradient((58, 52, 104), (196, 110, 128), width, height)
    for x in np.arange(0, width, 0.2 * unit):
        top = height * rng.uniform(0.15, 0.5)
        _box(image, x, top, 0.19 * unit, height, shade((48, 46, 78), rng.uniform(0.8, 1.3)))
        for _ in range(12):
            spot = (x + 0.19 * unit * rng.uniform(0.05, 0.8), rng.uniform(top, height))
            _box(image, *spot, 0.02 * unit, 0.03 * unit, (250, 214, 128))


def _mountains(rng: np.random.Generator, image: np.ndarray, colour: Colour, unit: int) -> None:
    height, width = image.shape[:2]
    image[:] = _gradient((150, 196, 226), (240, 226, 206), width, height)
    for layer, tone in enumerate([(142, 152, 182), (104, 120, 150), (88, 124, 96)]):
        base = height * (0.35 + 0.17 * layer)
        x = np.linspace(0, width, 9)
        ridge = np.stack([x, base - height * rng.uniform(0, 0.2, 9)], axis=1)
        outline = np.concatenate([ridge, [[width, height], [0, height]]]).astype(np.int32)
        cv2.fillPoly(image, [outline], tone, cv2.LINE_AA)


_PAINTERS: dict[str, Callable[[np.random.Generator, np.ndarray, Colour, int], None]] = {
    "striped": _striped,
    "panelled": _panelled,
    "dotted": _dotted,
    "tiled": _tiled,
    "bookshelf": _bookshelf,
    "window": _window,
    "pictures": _pictures,
    "curtain": _curtain,
    "forest": _forest,
    "beach": _beach,
    "city": _city,
    "mountains": _mountains,
}
