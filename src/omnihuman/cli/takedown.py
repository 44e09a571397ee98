"""`omnihuman data takedown`: where data, DVC, runs and the registry meet to remove a person."""

import argparse
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.cli.parsing import Adder

if TYPE_CHECKING:
    from omnihuman.data.material import Material
    from omnihuman.data.takedowns import TakenDown

_GENERATED = ("data", "reports", "renders", "runs")
"""Folders of a checkout with what steps have made."""
_UNFINISHED = ("work", "s3/files", "s3/objects", "s3/partial", "mlflow/artifacts")
"""The same below `$OMNIHUMAN_HOME`; `s3/index` keeps hashes only, by which nothing is fetched again."""
_SAMPLE = "demo.*"
"""The rendered sample shows a held-out person and names none."""


@dataclass
class _Found:
    """All that is to go, and what stays and has to be told."""

    material: "Material"
    files: list[Path]
    objects: set[str]
    """Of DVC's cache and remotes."""
    shards: list[tuple[str, str]]
    """Elsewhere, by place and name (`encode.shards_at`)."""
    unreachable: list[str]
    """What could not be looked at, in words."""
    pictures: list[tuple[str, str]]
    """Run and path in MLflow."""
    models: list[str]
    unknown: list[str]
    """Versions whose data is not in this cache."""
    unread: list[Path]
    """Networks of `data train-syncnet` that are not there or cannot be read."""


def add_verbs(add: Adder) -> None:
    """Adds `omnihuman data takedown`."""
    parser = add(
        "takedown",
        _takedown,
        "remove a person everywhere, for good, and name the models that were trained on them; exit code 3 when"
        " something could not be looked at or removed",
        "omnihuman data takedown anna --dry-run",
    )
    parser.add_argument("key", metavar="KEY", help="a takedown key or an identity of the table of sources")
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")


def _takedown(args: argparse.Namespace) -> int:
    from omnihuman.data.takedowns import RECORD, TakenDown, key_sha256
    from omnihuman.errors import UserError
    from omnihuman.pipeline.workplace import workplace
    from omnihuman.tracking.pictures import remove_artifact

    with workplace(Path.cwd()) as place:
        root, noted = place.folder, place.folder / ".dvc/tmp" / f"takedown-{key_sha256(args.key)[:16]}.json"
        taken_down = TakenDown(root / RECORD)
        found = _find(root, args.key, taken_down, noted)
        known = key_sha256(args.key) in taken_down.entries
        if not found.material.ids and not found.material.files and not known:
            raise UserError(
                f"no video has the takedown key or identity {args.key!r}, here or in the cache: see the columns"
                " takedown_key and identity of data/sources/sources.parquet"
            )
        _say(found, root)
        if args.dry_run:
            print("nothing was removed")
            return 0
        _note(found, noted)
        _record(root / RECORD, args.key, found, finished=False)
        for run_id, path in found.pictures:
            remove_artifact(run_id, path)
        problems = _remove(root, found)
        if not problems:
            _record(root / RECORD, args.key, found, finished=True)
            noted.unlink()
    for problem in problems:
        print(f"not removed: {problem}; see to it, and run this again")
    print(f"recorded in {RECORD}: commit it, then run `dvc repro`, which goes on without this person")
    return 3 if problems else 0


def _find(root: Path, key: str, taken_down: "TakenDown", noted: Path) -> _Found:
    from omnihuman.cli.places import ENCODED
    from omnihuman.config.load import PARAMS, load_section
    from omnihuman.data.material import Material, find_material, holding, shards_with
    from omnihuman.data.shard_reading import SHARDS_VARIABLE
    from omnihuman.data.takedowns import key_sha256
    from omnihuman.data.trained_networks import networks_trained_on
    from omnihuman.pipeline.objects import (
        folders_with,
        members_named,
        object_id,
        objects_folder,
        pictures_made_from,
        places_of_shards,
    )
    from omnihuman.registry.trained_on import data_of_versions
    from omnihuman.storage.work import omnihuman_home
    from omnihuman.tracking.pictures import SUFFIXES, pictures_of

    cache = objects_folder(root)
    homes = [omnihuman_home() / name for name in _UNFINISHED]
    checkouts = [root, *(path for path in (omnihuman_home() / "worktrees").glob("*") if path.is_dir())]
    generated = [checkout / name for checkout in checkouts for name in _GENERATED]
    places = [place for place in [cache, *homes, *generated] if place.is_dir()]
    material, before = Material(), _noted(noted)
    material.add_saved(before["material"])
    find_material(material, key, taken_down, places)
    elsewhere = places_of_shards(root, [checkout / ENCODED for checkout in checkouts])
    # Parts of several machines and a killed step lie there before any table says so.
    named = (load_section(root / PARAMS, "encode.shards_at"), os.environ.get(SHARDS_VARIABLE, ""))
    elsewhere |= {place for place in named if place}
    shards, unreachable = shards_with(material, elsewhere | {place for place, _ in before["shards"]})
    held = list(holding(material, places)) if material.ids or material.files else []
    objects = {object_id(path) for path in held if path.is_relative_to(cache)} | set(before["objects"])
    # Drawn videos lie in the project, their sidecars and ground truth beside them, which say who is shown.
    drawn = {Path(path).name.partition(".")[0] for path in material.paths if not Path(path).is_absolute()}
    objects |= members_named(root, drawn)
    folders = folders_with(root, objects) | {name for name in objects if name.endswith(".dir")}
    made = pictures_made_from(root, objects | folders)
    files = [path for path in held if not path.is_relative_to(cache)]
    beside = [path for checkout in checkouts for path in (checkout / "data").rglob("*") if path.is_file()]
    files += [path for path in beside if path.name.partition(".")[0] in drawn]
    if objects or files:
        shown = [path for checkout in checkouts for path in (checkout / "reports").rglob("*") if path.is_file()]
        shown += [path for checkout in checkouts for path in (checkout / "renders").glob(_SAMPLE)]
        shown += [path for path in (omnihuman_home() / "work").rglob("*") if path.suffix.lower() in SUFFIXES]
        files = sorted({*files, *shown})
    digests = data_of_versions()
    recorded = taken_down.entries.get(key_sha256(key))  # by a call before, which has removed what told so
    models = {name for name, data in digests.items() if data in folders} | set(recorded.models if recorded else ())
    networks, unread = networks_trained_on(material.ids)
    models |= {str(path) for path in networks if path not in files}
    cached = {path.parent.name + path.name for path in cache.glob("*/*.dir")} | folders
    return _Found(
        material=material,
        files=files,
        objects=objects | folders | made,
        shards=shards,
        unreachable=unreachable,
        pictures=pictures_of(folders),
        models=sorted(models),
        unknown=[name for name, data in digests.items() if data not in cached and name not in models],
        unread=[path for path in unread if not any(path.is_relative_to(place) for place in generated)],
    )


def _say(found: _Found, root: Path) -> None:
    material = found.material
    print(f"{len(material.paths)} videos; ids of videos and clips: {len(material.ids)}")
    print(
        f"to remove: {len(found.files)} files, {len(found.objects)} objects of DVC,"
        f" {len(found.shards)} shards elsewhere, {len(found.pictures)} in MLflow"
    )
    for name in found.models:
        print(f"trained on this person: {name}")
    for name in found.unknown:
        print(f"not known whether trained on this person, as its data is not in this cache: {name}")
    for path in found.unread:
        print(f"not known whether trained on this person, as it is not there or cannot be read: {path}")
    for path in sorted(material.paths):
        original = Path(path)
        if original.is_absolute() and original.is_file() and original not in found.files:
            print(f"yours to remove: {original}")


def _note(found: _Found, noted: Path) -> None:
    """What a call after a kill cannot find any more; goes when all is removed."""
    from omnihuman.storage.files import publish

    noted.parent.mkdir(parents=True, exist_ok=True)
    content = {"material": found.material.as_json(), "objects": sorted(found.objects), "shards": found.shards}
    with publish(noted) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _noted(noted: Path) -> dict:
    empty = {"material": {"ids": [], "files": {}, "paths": []}, "objects": [], "shards": []}
    return json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else empty


def _record(record: Path, key: str, found: _Found, *, finished: bool) -> None:
    from omnihuman.data.takedowns import Takedown, key_sha256, write_takedown

    now = datetime.now(UTC).isoformat(timespec="seconds")
    videos = tuple(sorted(found.material.files))
    write_takedown(record, Takedown(key_sha256(key), videos, tuple(found.models), now, now if finished else ""))


def _remove(root: Path, found: _Found) -> list[str]:
    from omnihuman.errors import UserError
    from omnihuman.pipeline.objects import remove_objects
    from omnihuman.storage.ranges import files_at

    problems = list(found.unreachable)
    for place, name in found.shards:
        try:
            files_at(place).remove(name)
        except UserError as error:
            problems.append(str(error))
    for path in found.files:
        path.unlink(missing_ok=True)
    return problems + remove_objects(root, found.objects)
