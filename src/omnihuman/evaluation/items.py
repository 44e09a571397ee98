"""The items of a protocol: who speaks or moves, by which sound or pose, and the real video, as the user names them."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnihuman.config.schema.protocol import EvaluationProtocol, ItemsOf
from omnihuman.data.adapters.registry import LAYOUTS
from omnihuman.data.entries import Entry
from omnihuman.data.sidecar import keypoints_path, read_sidecar
from omnihuman.data.sources import VIDEO_SUFFIXES
from omnihuman.data.takedowns import RECORD, TakenDown
from omnihuman.errors import UserError
from omnihuman.storage.files import path_sha256

COLUMNS = ("item", "person", "picture", "sound", "pose", "video", "picture_pose", "text")
FILES = ("picture", "sound", "pose", "video", "picture_pose")
LISTS = (".jsonl", ".csv")
_MAX_SHOWN = 20


@dataclass(frozen=True)
class Item:
    """One row of a test set. What is None is taken from the real video, or is not there."""

    item: str
    """Names the videos of all systems: ITEM.mp4."""
    person: str
    picture: Path | None = None
    sound: Path | None = None
    pose: Path | None = None
    video: Path | None = None
    """The real one."""
    picture_pose: Path | None = None
    """A track whose first moment is the pose in the picture: where a face is, and what a driver starts from."""
    text: str = ""
    span: tuple[float, float] | None = None
    """Of the real video, in seconds."""


def read_items(protocol: EvaluationProtocol, place: Path, takedowns: Path = RECORD) -> list[Item]:
    """The items of a list or a folder, as many as the protocol asks for, in the order of their names.

    Args:
        place: a list (.jsonl or .csv, with `COLUMNS`; paths count from its folder), or a folder laid out as
            `items.layout` says.

    Raises:
        UserError: it cannot be read, two items share a name, one lacks what drives it, or there are too few items or
            another number of people than the protocol says.
    """
    if not place.exists():
        raise UserError(f"items {place}: no such file or folder; name a list (.jsonl, .csv) or a folder of videos")
    found = _listed(place) if place.is_file() else _in_folder(place, protocol.items)
    taken_down = TakenDown(takedowns)
    found = [item for item in found if not _is_taken_down(item, taken_down)]
    problems = [*_name_clashes(found), *(_lacking(item, protocol.driven_by) for item in found)]
    raise_all(f"items {place}", [problem for problem in problems if problem])
    return sorted(_chosen(found, protocol.items, place), key=lambda item: item.item)


def raise_all(where: str, problems: Sequence[str]) -> None:
    """Raises one `UserError` that lists all problems, if there are any."""
    if problems:
        left = [f"and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
        raise UserError("\n  ".join([f"{where}: nothing was measured", *problems[:_MAX_SHOWN], *left]))


def items_sha256(items: Sequence[Item]) -> str:
    """Of names, people, texts, spans, and the content of all files; the same wherever they lie."""
    digest = hashlib.sha256()
    for item in items:
        files = [path_sha256(path) if (path := getattr(item, role)) else "" for role in FILES]
        told = [item.item, item.person, item.text, item.span, *files]
        digest.update(json.dumps(told).encode() + b"\n")
    return digest.hexdigest()


def _listed(place: Path) -> list[Item]:
    if place.suffix.lower() not in LISTS:
        raise UserError(f"items {place}: is no list; give .jsonl or .csv, or a folder of videos")
    try:
        rows = list(_rows(place))
    except (ValueError, OSError) as error:
        raise UserError(f"items {place}: cannot be read ({error}); write one item a line") from error
    items, problems = [], []
    for where, row in rows:
        problem = _wrong_row(row, place.parent)
        problems += [f"{where}: {problem}"] if problem else []
        items += [] if problem else [_item(row, place.parent)]
    raise_all(f"items {place}", problems)
    return items


def _rows(place: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = place.read_text(encoding="utf-8-sig")
    if place.suffix.lower() == ".csv":
        for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
            yield f"line {number}", {key: value for key, value in row.items() if value}
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            row = json.loads(line)
            yield f"line {number}", row if isinstance(row, dict) else {"": row}


def _wrong_row(row: dict[str, Any], root: Path) -> str:
    """What is wrong with a row; empty where nothing is."""
    if unknown := [str(key) for key in row if key not in COLUMNS]:
        return f"unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}"
    if not all(isinstance(value, str) for value in row.values()):
        return "a value is no text"
    if not row.get("item") or "/" in row["item"] or row["item"].startswith("."):
        return f"item is {row.get('item', '')!r}; give a name, which no / is in"
    for role in FILES:
        if role in row and not (root / row[role]).exists():
            return f"{role} {root / row[role]}: no such file"
    return ""


def _item(row: dict[str, str], root: Path) -> Item:
    files = (root / row[role] if role in row else None for role in FILES)
    return Item(row["item"], row.get("person", "") or row["item"], *files, text=row.get("text", ""))


def _in_folder(root: Path, wanted: ItemsOf) -> list[Item]:
    if wanted.layout in LAYOUTS:
        entries = LAYOUTS[wanted.layout](root)
    else:
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        entries = [Entry(path, root) for path in paths if not path.name.startswith(".")]
    if not entries:
        raise UserError(f"items {root}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    return [_of_entry(entry) for entry in entries]


def _of_entry(entry: Entry) -> Item:
    try:
        beside = read_sidecar(entry.path)
    except ValueError as error:
        raise UserError(f"items: {entry.path}: {error}") from error
    stem, pose = entry.path.stem, keypoints_path(entry.path)
    name = stem if entry.span is None else f"{stem}_{round(1000 * entry.span[0])}"
    return Item(
        item=name,
        person=entry.stated.identity or beside.identity or stem,
        pose=pose if pose.is_file() else None,
        video=entry.path,
        text=entry.stated.caption or beside.caption,
        span=entry.span,
    )


def _is_taken_down(item: Item, taken_down: TakenDown) -> bool:
    if not taken_down.entries:
        return False
    sha256 = path_sha256(item.video) if item.video else ""
    return {"identity": item.person, "takedown_key": "", "sha256": sha256} in taken_down


def _name_clashes(items: Sequence[Item]) -> list[str]:
    twice = [name for name, count in Counter(item.item for item in items).items() if count > 1]
    return [f"{name}: several items have this name; give each its own, by a list" for name in twice]


def _lacking(item: Item, driven_by: Sequence[str]) -> str:
    if item.picture is None and item.video is None:
        return f"{item.item}: has neither a picture nor a real video whose first one could be taken"
    if "audio" in driven_by and item.sound is None and item.video is None:
        return f"{item.item}: has neither a sound nor a real video whose sound could be taken"
    if "pose" in driven_by and item.pose is None:
        return f"{item.item}: has no pose; put NAME.keypoints.npz beside NAME.mp4, or name one in a list"
    return ""


def _chosen(items: Sequence[Item], wanted: ItemsOf, place: Path) -> list[Item]:
    """As many as are wanted, in an order that is a function of their names: one that is missing moves no other."""
    if len(items) < wanted.num_videos:
        raise UserError(f"items {place}: holds {len(items)} items, and the protocol says {wanted.num_videos}; add some")
    ordered = sorted(items, key=lambda item: hashlib.sha256(f"{wanted.seed} {item.item}".encode()).digest())
    chosen = ordered[: wanted.num_videos or None]
    people = len({item.person for item in chosen})
    if wanted.num_people and people != wanted.num_people:
        raise UserError(
            f"items {place}: shows {people} people, and the protocol says {wanted.num_people}; name them by `person` in"
            " a list, or by `identity` in NAME.json beside NAME.mp4"
        )
    return chosen
