"""HDTF: RD_, WDA_ and WRA_annotion_time.txt (sic), a video and its time spans a line (Zhang et al., 2021).

Either NAME_0.mp4, NAME_1.mp4 and so on, one for each span, as the authors tell people to cut them, or the whole
NAME.mp4, whose spans are then taken. Boxes of faces (*_crop_wh.txt) are for the downloaded resolution and are not
applied: frames are used whole. WDA and WRA name who speaks, with a number behind it for further videos, which goes. RD
names nobody, and one host may be in several videos: all of it is one identity, so that nobody is in both parts of the
split.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from omnihuman.data.entries import Entry
from omnihuman.data.sidecar import Sidecar
from omnihuman.errors import UserError

PARTS = ("RD", "WDA", "WRA")
_SPAN = re.compile(r"(?:(\d+):)?(\d+):(\d\d)-(?:(\d+):)?(\d+):(\d\d)")


def entries(root: Path) -> list[Entry]:
    """The clips that the annotations name and that are here; those that were never downloaded are passed over.

    Raises:
        UserError: there is no annotation, a line is malformed, or none of the clips is here.
    """
    lists = [path for part in PARTS for path in sorted(root.rglob(f"{part}_annotion_time.txt"))]
    if not lists:
        raise UserError(f"{root}: holds no {PARTS[0]}_annotion_time.txt (or {', '.join(PARTS[1:])}); put it there")
    videos = {path.name: path for path in sorted(root.rglob("*.mp4"), reverse=True)}
    found = [entry for annotation in lists for entry in _entries(root, annotation, videos)]
    if not found:
        raise UserError(f"{root}: holds none of the videos of its annotations; expected NAME_0.mp4 or NAME.mp4")
    return found


def _entries(root: Path, annotation: Path, videos: dict[str, Path]) -> Iterator[Entry]:
    part = annotation.name.partition("_")[0]
    for number, line in enumerate(annotation.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, *texts = line.split()
        stem, where = name.removesuffix(".mp4"), f"{annotation.name}, row {number}"
        identity = "HDTF radio" if part == "RD" else f"HDTF {stem.rstrip('0123456789')}"
        stated = Sidecar(identity=identity, language="en", takedown_key=f"HDTF {stem}")
        spans = [_span(annotation, number, text) for text in texts]
        for index, span in enumerate(spans):
            if cut := videos.get(f"{stem}_{index}.mp4"):
                yield Entry(cut, root, where, stated)
            elif whole := videos.get(f"{stem}.mp4"):
                yield Entry(whole, root, where, stated, span)


def _span(annotation: Path, number: int, text: str) -> tuple[float, float]:
    match = _SPAN.fullmatch(text)
    numbers = [int(group or 0) for group in match.groups()] if match else [0] * 6
    start, end = (
        float(hours * 3600 + minutes * 60 + seconds) for hours, minutes, seconds in (numbers[:3], numbers[3:])
    )
    if start >= end:
        raise UserError(f"{annotation}, row {number}: {text!r} is no time span; write it as 00:30-01:00")
    return start, end
