"""What a drawn person looks like; the same in all clips of one identity."""

from dataclasses import dataclass

import numpy as np

from omnihuman.data.synthetic.canvas import Colour

SKINS: tuple[Colour, ...] = (
    (250, 222, 200),
    (244, 206, 176),
    (232, 190, 152),
    (214, 164, 122),
    (186, 134, 96),
    (152, 104, 74),
    (118, 80, 58),
)
HAIR: dict[str, Colour] = {
    "black": (38, 32, 38),
    "brown": (98, 62, 40),
    "dark brown": (66, 44, 34),
    "red": (172, 74, 38),
    "blond": (226, 184, 104),
    "grey": (158, 158, 166),
    "white": (228, 226, 222),
    "blue": (58, 92, 168),
}
CLOTHES: dict[str, Colour] = {
    "green": (66, 140, 94),
    "blue": (58, 104, 176),
    "yellow": (230, 184, 66),
    "white": (236, 234, 228),
    "purple": (122, 86, 160),
    "orange": (226, 128, 58),
    "teal": (42, 138, 146),
    "navy": (44, 56, 96),
    "pink": (224, 148, 172),
    "grey": (126, 132, 142),
    "black": (46, 46, 54),
    "olive": (122, 124, 66),
}
EYES: tuple[Colour, ...] = ((84, 54, 36), (60, 110, 158), (74, 124, 84), (46, 36, 32), (120, 96, 54), (104, 118, 128))
TROUSERS: tuple[Colour, ...] = ((52, 62, 92), (70, 68, 72), (118, 96, 76), (42, 46, 58), (96, 110, 132))
SHOES: tuple[Colour, ...] = ((46, 40, 42), (226, 224, 220), (120, 74, 50), (70, 84, 120))
HAIR_STYLES = {
    "woman": ("long", "bob", "curly", "bun", "short", "ponytail"),
    "man": ("short", "quiff", "buzzed", "curly", "parted", "bald"),
}
TOPS = ("shirt", "t-shirt", "jumper", "jacket")


@dataclass(frozen=True)
class Looks:
    """Everything that makes a person recognisable; lengths in head heights."""

    noun: str  # woman | man
    skin: Colour
    lips: Colour
    eyes: Colour
    hair_name: str
    hair_style: str
    top_name: str
    top_style: str
    trousers: Colour
    shoes: Colour
    face_half_width: float
    jaw_taper: float  # 0 square .. 0.35 pointed
    eye_size: float
    brow_width: float
    nose_size: float
    shoulder_half_width: float
    glasses: bool
    beard: bool
    earrings: bool
    beanie: bool

    @property
    def hair(self) -> Colour:
        """Colour of hair, brows and beard."""
        return HAIR[self.hair_name]

    @property
    def top(self) -> Colour:
        """Colour of what the upper body wears."""
        return CLOTHES[self.top_name]

    @property
    def possessive(self) -> str:
        """`her` or `his`."""
        return "her" if self.noun == "woman" else "his"


def draw_looks(rng: np.random.Generator) -> Looks:
    """Draws a person at random."""
    noun = str(rng.choice(["woman", "man"]))
    skin_index = int(rng.integers(len(SKINS)))
    red = 196 + int(rng.integers(-8, 16))
    style = str(rng.choice(HAIR_STYLES[noun]))
    tall_hair = style in ("curly", "bun", "quiff")
    return Looks(
        noun=noun,
        skin=SKINS[skin_index],
        lips=(red, 48 + int(rng.integers(0, 18)), 62 + int(rng.integers(0, 24))),
        eyes=EYES[int(rng.integers(len(EYES)))],
        hair_name=str(rng.choice(list(HAIR), p=[0.2, 0.2, 0.14, 0.14, 0.14, 0.08, 0.05, 0.05])),
        hair_style=style,
        top_name=str(rng.choice(list(CLOTHES))),
        top_style=str(rng.choice(TOPS)),
        trousers=TROUSERS[int(rng.integers(len(TROUSERS)))],
        shoes=SHOES[int(rng.integers(len(SHOES)))],
        face_half_width=float(rng.uniform(0.37, 0.42)),
        jaw_taper=float(rng.uniform(0.02, 0.26)),
        eye_size=float(rng.uniform(0.9, 1.15)),
        brow_width=float(rng.uniform(0.02, 0.034)),
        nose_size=float(rng.uniform(0.8, 1.25)),
        shoulder_half_width=float(rng.uniform(0.46, 0.51) if noun == "woman" else rng.uniform(0.5, 0.55)),
        glasses=bool(rng.random() < 0.25),
        beard=bool(noun == "man" and rng.random() < 0.35),
        earrings=bool(noun == "woman" and rng.random() < 0.4),
        beanie=bool(not tall_hair and rng.random() < 0.1),
    )
