"""Step `collect`: a table of raw videos, drawn by the project, found in a folder or on S3, or listed."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from omnihuman.config.schema.collect import Collect
from omnihuman.data.adapters.registry import LAYOUTS
from omnihuman.data.entries import LIST_SUFFIXES, Entry, listed
from omnihuman.data.inspection import Inspection, inspect
from omnihuman.data.manifest import SOURCES, SOURCES_TABLE, write_table
from omnihuman.data.sidecar import SIDECAR_SUFFIXES, keypoints_path
from omnihuman.data.spans import write_spans
from omnihuman.data.takedowns import RECORD, TakenDown
from omnihuman.errors import UserError
from omnihuman.media.worker import Limits, Outcome, run_guarded
from omnihuman.storage.files import publish_folder
from omnihuman.storage.s3_cache import S3Cache

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts", ".mts", ".m2ts")
PROBE_MEMORY_MEGABYTES = 2048
RIGHTS = ("licence", "consent_basis", "rights_holder")
"""What must be stated for every video of people, if only as `unknown`."""

log = logging.getLogger(__name__)


def collect(config: Collect, seed: int, sources: Path, truth: Path, takedowns: Path = RECORD) -> None:
    """Writes `sources`/sources.parquet, one row per video, and for drawn videos their ground truth to `truth`.

    Files that cannot be used become rows that say why; equal files become one row. People in the record `takedowns` are
    left out, and the copies that the project itself holds of their videos are removed.

    Raises:
        UserError: the source is missing, names or holds no usable video, or rights are not stated.
    """
    taken_down = TakenDown(takedowns)
    with publish_folder(sources) as sources_partial, publish_folder(truth) as truth_partial:
        if config.source == "synthetic":
            # Imported here, because only drawn videos need it; ground truth must not be reachable from elsewhere.
            from omnihuman.data.synthetic.corpus import generate_corpus

            root = sources_partial / "videos"
            root.mkdir()
            generate_corpus(config.synthetic, seed, videos=root, truth=truth_partial)
            base, entries = sources_partial, _in_folder(root)
        else:
            base, entries = Path("/"), find_entries(config, taken_down)
            (truth_partial / "README").write_text("Real videos have no ground truth.\n")
        found = scan(config, entries, base)
        spans = {row["source_id"]: entry.span for row, entry in found if entry.span}
        rows = _without_taken_down([row for row, _ in found], taken_down, base, truth_partial)
        write_table(_assign_split(rows, config.test_share, seed), SOURCES, sources_partial / SOURCES_TABLE)
        write_spans(
            {row["source_id"]: spans[row["source_id"]] for row in rows if row["source_id"] in spans}, sources_partial
        )


def find_entries(config: Collect, taken_down: TakenDown) -> list[Entry]:
    """The videos of a folder, an S3 prefix, a list or a table.

    Raises:
        UserError: the source is missing, is not laid out as `collect.layout` says, or names no video.
    """
    cache = S3Cache(SIDECAR_SUFFIXES, without=taken_down.files)
    if config.source.startswith("s3://"):
        root = cache.fetch_folder(config.source, (*VIDEO_SUFFIXES, *SIDECAR_SUFFIXES))
    else:
        root = _check_source(config.source)
        if root.is_file():
            return listed(root, cache)
    return LAYOUTS[config.layout](root) if config.layout in LAYOUTS else _in_folder(root)


def scan(config: Collect, entries: Sequence[Entry], base: Path) -> list[tuple[dict[str, Any], Entry]]:
    """Inspects videos and returns their rows; paths in them are relative to `base`, or absolute where that is `/`.

    Raises:
        UserError: none can be used, or rights of one are not stated.
    """
    limits = Limits(config.deadline_seconds, PROBE_MEMORY_MEGABYTES)
    outcomes = run_guarded(partial(inspect, config), entries, limits, "collect")
    found = [(_row(config, base, entry, outcome), entry) for entry, outcome in zip(entries, outcomes, strict=True)]
    if all(row["status"] != "ok" for row, _ in found):
        reasons = "; ".join(f"{Path(row['path']).name} {row['error']}" for row, _ in found[:3])
        source = "" if config.source == "synthetic" else f" in {config.source}"
        raise UserError(f"none of the {len(found)} videos{source} can be used: {reasons}; mend or replace them")
    _check_rights(found)
    return _drop_duplicates(found)


def _check_rights(found: Sequence[tuple[dict[str, Any], Entry]]) -> None:
    lacking = [(row, entry, key) for row, entry in found for key in RIGHTS if not row[key]]
    if lacking:
        row, entry, key = lacking[0]
        where = f"{entry.where} ({row['path']})" if entry.where else row["path"]
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise UserError(
            f"{where}: {key} is not stated{more}; fill it in there, or set collect.{key} for all that do not state it"
            " (`unknown` where it is not known)"
        )


def _without_taken_down(
    rows: list[dict[str, Any]], taken_down: TakenDown, base: Path, truth: Path
) -> list[dict[str, Any]]:
    """The rows of everybody else; of drawn people and in the cache of S3 the files go, too."""
    kept = [row for row in rows if row not in taken_down]
    if len(kept) == len(rows):
        return rows
    log.warning("%d of %d videos are left out: who they show was taken down", len(rows) - len(kept), len(rows))
    cached = S3Cache(SIDECAR_SUFFIXES)
    for row in rows:
        if row in taken_down and base != Path("/"):
            for path in [
                *base.glob(f"{Path(row['path']).with_suffix('')}.*"),
                *truth.glob(f"{Path(row['path']).stem}.*"),
            ]:
                path.unlink()
        elif row in taken_down:
            cached.forget(Path(row["path"]))
    if not any(row["status"] == "ok" for row in kept):
        raise UserError("all usable videos show people who were taken down; add others to collect.source")
    return kept


def _check_source(source: str) -> Path:
    root = Path(source)
    remedy = (
        "set collect.source to the absolute path of a folder of videos, of a list or table, to s3:// or to synthetic"
    )
    if not root.is_absolute():
        raise UserError(f"collect.source is {source!r}, which is no absolute path; {remedy}")
    if not root.exists():
        raise UserError(f"collect.source is {source!r}, which does not exist; {remedy}")
    if not root.is_dir() and root.suffix.lower() not in LIST_SUFFIXES:
        raise UserError(f"collect.source is {source!r}, neither a folder nor {', '.join(LIST_SUFFIXES)}; {remedy}")
    return root


def _in_folder(root: Path) -> list[Entry]:
    paths = sorted(_find_videos(root), key=os.fsencode)
    if not paths:
        suffixes = ", ".join(VIDEO_SUFFIXES)
        raise UserError(f"no videos in {root}: expected files named {suffixes}; set collect.source to their folder")
    return [Entry(path, root) for path in paths]


def _find_videos(root: Path) -> Iterator[Path]:
    """Videos below a folder; hidden files and folders, and folders that are links, are passed over."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES:
                yield path


def _row(config: Collect, base: Path, entry: Entry, outcome: Outcome[Inspection]) -> dict[str, Any]:
    path = entry.path
    found = outcome.value or Inspection(error=outcome.error)
    status = outcome.status if outcome.value is None else ("error" if found.error else "ok")
    shown = _text(path, base)
    if shown != str(path if base == Path("/") else path.relative_to(base)):
        status, found = "error", Inspection(error="its name is not in UTF-8; rename it")
    said = [asdict(entry.stated), asdict(found.sidecar)]
    sidecar = {key: value for each in reversed(said) for key, value in each.items() if value}
    identity = sidecar.get("identity", Path(shown).stem)
    return {
        "source_id": _source_id(found.sha256, shown, entry),
        "sha256": found.sha256,
        "path": shown,
        "status": status,
        "error": found.error or found.note,
        "bytes": path.lstat().st_size if path.exists() or path.is_symlink() else 0,
        "identity": identity,
        "caption": "",
        "language": "",
        "keypoints_path": _text(keypoints_path(path), base) if found.keypoints_sha256 else "",
        "keypoints_sha256": found.keypoints_sha256,
        "licence": config.licence,
        "consent_basis": config.consent_basis,
        "rights_holder": config.rights_holder,
        "takedown_key": identity,
        **asdict(found.probe),
        **sidecar,
    }


def _text(path: Path, base: Path) -> str:
    """A path as the table can hold it; bytes that are no UTF-8 are escaped."""
    shown = path if base == Path("/") else path.relative_to(base)
    return os.fsencode(shown).decode("utf-8", "backslashreplace")


def _source_id(sha256: str, shown: str, entry: Entry) -> str:
    """Of the content; of content and span where a source is a part of a file."""
    if not entry.span:
        return (sha256 or hashlib.sha256(shown.encode()).hexdigest())[:16]
    start, end = entry.span
    return hashlib.sha256(f"{sha256 or shown} {start:.6f} {end:.6f}".encode()).hexdigest()[:16]


def _drop_duplicates(found: Sequence[tuple[dict[str, Any], Entry]]) -> list[tuple[dict[str, Any], Entry]]:
    kept: dict[str, tuple[dict[str, Any], Entry]] = {}
    for row, entry in found:
        if row["source_id"] in kept:
            log.warning("%s has the same content as %s and is left out", row["path"], kept[row["source_id"]][0]["path"])
        kept.setdefault(row["source_id"], (row, entry))
    return list(kept.values())


def _assign_split(rows: list[dict[str, Any]], test_share: float, seed: int) -> list[dict[str, Any]]:
    """Holds out whole identities, so that no person is in both parts."""
    identities = sorted(
        {row["identity"] for row in rows if row["status"] == "ok"},
        key=lambda identity: hashlib.sha256(f"{seed} {identity}".encode()).digest(),
    )
    num_test = round(test_share * len(identities))
    if len(identities) >= 2:
        num_test = min(max(num_test, 1), len(identities) - 1)
    test = set(identities[:num_test])
    return [{**row, "split": "test" if row["identity"] in test else "train"} for row in rows]
