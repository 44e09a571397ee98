"""RAVDESS: Actor_07/01-01-06-01-02-01-07.mp4, whose name says everything (Livingstone and Russo, 2018).

Modality, vocal channel, emotion, intensity, statement, repetition, actor. Odd actors are men, even ones women. Videos
without sound (modality 02) are left out where the same take lies there with sound (01).
"""

import re
from pathlib import Path

from omnihuman.data.entries import Entry
from omnihuman.data.sidecar import Sidecar
from omnihuman.errors import UserError

_NAME = re.compile(r"(0[12])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
_VOCAL = {"01": "says", "02": "sings"}
_EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful", "07": "disgusted",
    "08": "surprised",
}  # fmt: skip
_STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


def entries(root: Path) -> list[Entry]:
    """The videos of a folder in this layout.

    Raises:
        UserError: there is none, or a video has another name.
    """
    found: dict[tuple[str, ...], Entry] = {}
    for path in sorted(root.rglob("*.mp4"), key=lambda path: (path.name, path)):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            raise UserError(
                f"{path}: is not named as in RAVDESS (MM-VV-EE-II-SS-RR-AA.mp4, e.g. 01-01-06-01-02-01-12.mp4);"
                " rename it or move it away, or set collect.layout=plain"
            )
        _, *take = match.groups()
        found.setdefault(tuple(take), Entry(path, root, stated=_stated(*take)))  # 01, with sound, sorts first
    if not found:
        raise UserError(f"{root}: holds no .mp4; set collect.source to the folder with Actor_01 and so on")
    return list(found.values())


def _stated(vocal: str, emotion: str, intensity: str, statement: str, _repetition: str, actor: str) -> Sidecar:
    person = "a man" if int(actor) % 2 else "a woman"
    strongly = "very " if intensity == "02" and emotion != "01" else ""
    caption = f'{person} {_VOCAL[vocal]} "{_STATEMENTS[statement]}", {strongly}{_EMOTIONS[emotion]}'
    return Sidecar(identity=f"RAVDESS actor {actor}", caption=caption, language="en")
