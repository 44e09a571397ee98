"""Step `collect`: a table of raw videos, drawn by the project or found in a folder."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from omnihuman.config.schema.collect import Collect
from omnihuman.data.inspection import Inspection, inspect
from omnihuman.data.manifest import SOURCES, SOURCES_TABLE, write_table
from omnihuman.data.sidecar import keypoints_path
from omnihuman.errors import UserError
from omnihuman.media.worker import Limits, Outcome, run_guarded
from omnihuman.storage.files import publish_folder

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts", ".mts", ".m2ts")
PROBE_MEMORY_MEGABYTES = 2048

log = logging.getLogger(__name__)


def collect(config: Collect, seed: int, sources: Path, truth: Path) -> None:
    """Writes `sources`/sources.parquet, one row per video, and for drawn videos their ground truth to `truth`.

    Files that cannot be used become rows that say why; equal files become one row.

    Raises:
        UserError: the folder is missing, is none, or holds no usable video.
    """
    with publish_folder(sources) as sources_partial, publish_folder(truth) as truth_partial:
        if config.source == "synthetic":
            # Imported here, because only drawn videos need it; ground truth must not be reachable from elsewhere.
            from omnihuman.data.synthetic.corpus import generate_corpus

            root = sources_partial / "videos"
            root.mkdir()
            generate_corpus(config.synthetic, seed, videos=root, truth=truth_partial)
            base = sources_partial
        else:
            root, base = _check_folder(config.source), Path("/")
            (truth_partial / "README").write_text("Real videos have no ground truth.\n")
        rows = _assign_split(scan(config, root, base), config.test_share, seed)
        write_table(rows, SOURCES, sources_partial / SOURCES_TABLE)


def scan(config: Collect, root: Path, base: Path) -> list[dict[str, Any]]:
    """Inspects all videos below `root`; paths in the rows are relative to `base`, or absolute where that is `/`.

    Raises:
        UserError: there are none, or none can be used.
    """
    paths = sorted(_find_videos(root), key=os.fsencode)
    if not paths:
        suffixes = ", ".join(VIDEO_SUFFIXES)
        raise UserError(f"no videos in {root}: expected files named {suffixes}; set collect.source to their folder")
    limits = Limits(config.deadline_seconds, PROBE_MEMORY_MEGABYTES)
    outcomes = run_guarded(partial(inspect, config, root), paths, limits, "collect")
    rows = [_row(config, base, path, outcome) for path, outcome in zip(paths, outcomes, strict=True)]
    if all(row["status"] != "ok" for row in rows):
        reasons = "; ".join(f"{Path(row['path']).name} {row['error']}" for row in rows[:3])
        raise UserError(f"none of the {len(rows)} videos in {root} can be used: {reasons}; mend or replace them")
    return _drop_duplicates(rows)


def _check_folder(source: str) -> Path:
    root = Path(source)
    remedy = "set collect.source to the absolute path of a folder of videos, or to synthetic"
    if not root.is_absolute():
        raise UserError(f"collect.source is {source!r}, which is no absolute path; {remedy}")
    if not root.exists():
        raise UserError(f"collect.source is {source!r}, which does not exist; {remedy}")
    if not root.is_dir():
        raise UserError(f"collect.source is {source!r}, which is no folder; {remedy}")
    return root


def _find_videos(root: Path) -> Iterator[Path]:
    """Videos below a folder; hidden files and folders, and folders that are links, are passed over."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES:
                yield path


def _row(config: Collect, base: Path, path: Path, outcome: Outcome[Inspection]) -> dict[str, Any]:
    found = outcome.value or Inspection(error=outcome.error)
    status = outcome.status if outcome.value is None else ("error" if found.error else "ok")
    shown = _text(path, base)
    if shown != str(path if base == Path("/") else path.relative_to(base)):
        status, found = "error", Inspection(error="its name is not in UTF-8; rename it")
    sidecar = {key: value for key, value in asdict(found.sidecar).items() if value}
    return {
        "source_id": (found.sha256 or hashlib.sha256(shown.encode()).hexdigest())[:16],
        "sha256": found.sha256,
        "path": shown,
        "status": status,
        "error": found.error or found.note,
        "bytes": path.lstat().st_size,
        "identity": Path(shown).stem,
        "caption": "",
        "language": "",
        "keypoints_path": _text(keypoints_path(path), base) if found.keypoints_sha256 else "",
        "keypoints_sha256": found.keypoints_sha256,
        "licence": config.licence,
        "consent_basis": config.consent_basis,
        "rights_holder": "",
        "takedown_key": "",
        **asdict(found.probe),
        **sidecar,
    }


def _text(path: Path, base: Path) -> str:
    """A path as the table can hold it; bytes that are no UTF-8 are escaped."""
    shown = path if base == Path("/") else path.relative_to(base)
    return os.fsencode(shown).decode("utf-8", "backslashreplace")


def _drop_duplicates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["source_id"] in kept:
            log.warning("%s has the same content as %s and is left out", row["path"], kept[row["source_id"]]["path"])
        kept.setdefault(row["source_id"], row)
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
