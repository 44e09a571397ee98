"""Single objects of DVC's cache and remotes, which DVC itself removes only where no commit refers to them."""

import json
import shutil
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from omnihuman.data.shard_reading import PLACE
from omnihuman.pipeline.graph import cache_folder
from omnihuman.storage.work import omnihuman_home

PICTURES_OF = ("reports", "renders")
"""Folders of outputs that may show people without naming them."""
_LOCK = Path("dvc.lock")


def objects_folder(root: Path) -> Path:
    """Where the cache of a checkout keeps its objects, each named by its MD5."""
    return cache_folder(root) / "files" / "md5"


def object_id(path: Path) -> str:
    """The MD5 of an object in the cache, with `.dir` for a folder's list."""
    return path.parent.name + path.name


def folders_with(root: Path, objects: Set[str]) -> set[str]:
    """The folders, as `.dir` objects of the cache, that hold one of these objects."""
    return {folder for folder, members in _folders(root).items() if not objects.isdisjoint(members)}


def members_named(root: Path, stems: Set[str]) -> set[str]:
    """Objects that lie in some folder as NAME.SUFFIX with one of these names: sidecars and ground truth of videos."""
    members = [member for listed in _lists(root).values() for member in listed]
    return {member["md5"] for member in members if Path(member["relpath"]).name.partition(".")[0] in stems}


def places_of_shards(root: Path, folders: Iterable[Path]) -> set[str]:
    """Where the shards lie that some folders of encoded clips, and those of earlier runs in the cache, only name."""
    notes = [folder / PLACE for folder in folders]
    named = [member["md5"] for listed in _lists(root).values() for member in listed if member["relpath"] == PLACE]
    notes += [objects_folder(root) / md5[:2] / md5[2:] for md5 in named]
    return {json.loads(note.read_text(encoding="utf-8")) for note in notes if note.is_file()}


def pictures_made_from(root: Path, objects: Set[str]) -> set[str]:
    """Objects of the reports that steps made out of these objects or folders, as dvc.lock and the run cache tell."""
    folders, found = _folders(root), set()
    for entry in _entries(root):
        if any(dep.get("md5") in objects for dep in entry.get("deps", [])):
            made = [out for out in entry.get("outs", []) if Path(out["path"]).parts[0] in PICTURES_OF and "md5" in out]
            found |= {md5 for out in made for md5 in (out["md5"], *folders.get(out["md5"], []))}
    return found


def remove_objects(root: Path, objects: Iterable[str]) -> list[str]:
    """Removes objects from the cache and from every remote; returns what could not be reached, in words.

    DVC's own notes of paths and hashes go too, because names of files may name people; it makes them again.
    """
    wanted, problems = sorted(objects), []
    with Repo(str(root)) as repo:
        # Those of worktrees lie where `make` and worktrees put them.
        notes = [*(omnihuman_home() / "dvc/repo").glob("*"), *map(Path, filter(None, [repo.site_cache_dir]))]
        for name in sorted(repo.config["remote"]):
            try:
                remote = repo.cloud.get_remote_odb(name, command="omnihuman data takedown")
                for one in wanted:
                    path = remote.oid_to_path(one)
                    if remote.fs.exists(path):
                        remote.fs.remove(path)
            except (DvcException, OSError) as error:
                problems.append(f"the remote {name}: {error}")
    for one in wanted:
        (objects_folder(root) / one[:2] / one[2:]).unlink(missing_ok=True)
    for place in notes:
        for name in ("hashes", "index"):
            shutil.rmtree(place / name, ignore_errors=True)
    return problems


def _folders(root: Path) -> dict[str, list[str]]:
    """Members by `.dir` object; one object may be a part of several folders."""
    return {name: [member["md5"] for member in listed] for name, listed in _lists(root).items()}


def _lists(root: Path) -> dict[str, list[dict[str, str]]]:
    return {object_id(path): json.loads(path.read_bytes()) for path in objects_folder(root).glob("*/*.dir")}


def _entries(root: Path) -> list[dict[str, Any]]:
    """Steps with the MD5 of what they read and made."""
    lock = root / _LOCK
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values() if lock.is_file() else []
    runs = [path for path in (cache_folder(root) / "runs").glob("*/*/*") if path.is_file()]
    return [*stages, *(yaml.safe_load(path.read_text(encoding="utf-8")) for path in runs)]
