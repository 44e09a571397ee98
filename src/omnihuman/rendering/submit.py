"""From a file of jobs to a folder of videos and a report."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from tqdm import tqdm

from omnihuman.config.schema.root import Params
from omnihuman.errors import UserError
from omnihuman.inference.provenance import ModelIdentity, Provenance
from omnihuman.rendering.jobs import Job, read_jobs
from omnihuman.rendering.ledger import FINAL, ItemState, Ledger
from omnihuman.rendering.manifest import MANIFEST, Item, Manifest, finished_videos, hash_inputs, plan, put
from omnihuman.rendering.processes import work_in_processes
from omnihuman.rendering.report import Report, write_report

if TYPE_CHECKING:  # the registry brings MLflow, which a batch that is planned already does not need
    from omnihuman.registry.versions import ModelVersion

CHAMPION = "champion"
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Batch:
    """Jobs that were read and checked, and the version that is to render them. Nothing is written yet."""

    folder: Path
    manifest: Manifest
    model: Path
    """Folder of the weights."""


def prepare(
    jobs: Path, folder: Path, params: Params, reference: str | None, resolve: "Callable[[str], ModelVersion]"
) -> Batch:
    """Reads the jobs and pins the model, once for the whole batch.

    A batch that was begun and not ended keeps the version that it was begun with, though the champion is another now.

    Args:
        reference: a version or alias; None for the champion.
        resolve: from a reference to a version with its files.

    Raises:
        UserError: the jobs are wrong, a file cannot be read, or there is no such version.
    """
    checked = read_jobs(jobs, folder, params)
    hashes = hash_inputs(checked)
    begun = _begun(checked, hashes, folder) if reference is None else None
    version = resolve(str(begun.version) if begun else reference or CHAMPION)
    identity = identity_of(version)
    if begun and begun != identity:
        raise UserError(f"{folder / MANIFEST}: {_name(begun)} has other weights in the registry now; give --model")
    return Batch(folder, plan(checked, hashes, identity), version.folder)


def reopen(folder: Path, resolve: "Callable[[str], ModelVersion]") -> Batch:
    """The batch of a folder as its manifest pins it.

    Raises:
        UserError: there is none, or its version cannot be had with the same weights.
    """
    manifest = Manifest.load(folder)
    version = resolve(str(manifest.model.version))
    if identity_of(version) != manifest.model:
        raise UserError(f"{folder / MANIFEST}: {_name(manifest.model)} has other weights in the registry now")
    return Batch(folder, manifest, version.folder)


def identity_of(version: "ModelVersion") -> ModelIdentity:
    """What is pinned of a version."""
    return ModelIdentity(version.name, version.version, version.sha256)


def _name(model: ModelIdentity) -> str:
    return f"{model.name} version {model.version} ({model.sha256[:12]})"


def _begun(jobs: list[Job], hashes: Mapping[Path, str], folder: Path) -> ModelIdentity | None:
    """The version of an unended batch of exactly these jobs."""
    ledger = Ledger(folder)
    if not (folder / MANIFEST).is_file() or not ledger.exists():
        return None
    manifest = Manifest.load(folder)
    if manifest != plan(jobs, hashes, manifest.model) or all(item.state in FINAL for item in ledger.items()):
        return None
    return manifest.model


def enter(batch: Batch) -> None:
    """Writes manifest and ledger; videos that lie finished in the folder are done, and get their further names.

    Raises:
        UserError: the folder cannot be written, or another batch is being rendered into it.
    """
    try:
        batch.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(batch.folder / ".submit.lock", timeout=_LOCK_SECONDS):
            ledger, items = Ledger(batch.folder), batch.manifest.items
            finished = finished_videos(batch.folder, (item.id for item in items))
            ledger.plan(batch.manifest.id, (item.id for item in items), finished)
            batch.manifest.save(batch.folder)
            for item in items:
                if item.id in finished:
                    _complete(item, batch.folder, finished[item.id])
    except OSError as error:
        raise UserError(f"{batch.folder}: cannot be written ({error}); give another --output") from error


def _complete(item: Item, folder: Path, video: Path) -> None:
    """Gives a finished video those of its names that it lacks."""
    present = item.finished_in(folder)
    provenance = Provenance.load(video)
    for name in item.outputs:
        if name not in present:
            put(video, folder / name, provenance)


def run(batch: Batch, workers: int, lease_seconds: float, together: int = 1) -> Report:
    """Renders what is open and writes the report.

    Args:
        workers: 1 renders in this process, more in as many processes.
        together: items that each renders at the same time, their segments in common batches.

    Raises:
        UserError: the model cannot be loaded.
    """
    ledger = Ledger(batch.folder)
    with _shown(batch.manifest, ledger) as changed:
        if workers > 1:
            work_in_processes(batch.folder, batch.model, lease_seconds, workers, changed, together)
        else:
            from omnihuman.rendering.worker import Policy, work  # torch, which the parent of processes does not need

            work(batch.folder, batch.model, Policy(lease_seconds=lease_seconds), changed, together)
    return write_report(batch.folder, batch.manifest, ledger.items())


@contextmanager
def _shown(manifest: Manifest, ledger: Ledger) -> Iterator[Callable[[], None]]:
    """Shows ended items: a bar on a terminal, lines elsewhere. Yields what is to be called after a change."""
    names = {item.id: ", ".join(item.outputs) for item in manifest.items}
    ended = {item.id for item in ledger.items() if item.state in FINAL}
    with tqdm(total=len(names), initial=len(ended), unit="video", disable=None, file=sys.stderr) as bar:
        if ended and bar.disable:
            print(f"{len(ended)} of {len(names)} are done or dead already", file=sys.stderr, flush=True)

        def changed() -> None:
            for item in ledger.items():
                if item.state in FINAL and item.id not in ended:
                    ended.add(item.id)
                    bar.update()
                    if bar.disable or item.state == "dead":
                        bar.write(f"{len(ended)} of {len(names)}: {names[item.id]} {_ending(item)}", file=sys.stderr)

        yield changed
        changed()


def _ending(item: ItemState) -> str:
    return f"in {item.seconds:.1f} s" if item.state == "done" else f"is dead: {item.error}"
