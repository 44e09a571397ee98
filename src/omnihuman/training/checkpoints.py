"""Checkpoints of a stage under way: whole or absent, checked before use, and as many as the policy keeps."""

import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError

from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256, publish
from omnihuman.training.ranks import Ranks

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "state"
"""Lightning's file, or DeepSpeed's folder."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_IN_WORDS = re.compile(rf"PytorchStreamWriter failed|os error ({'|'.join(map(str, _FULL))})\)")


@dataclass(frozen=True)
class Manifest:
    """Written last into a checkpoint; what it does not list or what does not fit it was not saved by us."""

    step: int
    strategy: str
    num_ranks: int
    """That can go on from it; 0 for any."""
    sha256: dict[str, str]
    """Of every file, by its path in the folder."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files fit its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def universal(self) -> bool:
        """Whether any number of ranks can go on from it."""
        return self.manifest.num_ranks == 0

    @property
    def state(self) -> Path:
        """What Lightning loads."""
        return self.folder / STATE


def read_manifest(folder: Path) -> Manifest:
    """What a checkpoint's folder should hold.

    Raises:
        UserError: there is no manifest, or not one of this version.
    """
    try:
        return Manifest(**json.loads((folder / MANIFEST).read_text()))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no checkpoint of a stage: {MANIFEST} is missing; name a folder step-N") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} cannot be read: {error}; take an earlier checkpoint") from error


def write_manifest(
    folder: Path,
    step: int,
    strategy: str,
    num_ranks: int,
    ranks: Ranks | None = None,
    known: Mapping[str, str] | None = None,
) -> None:
    """Hashes the files, shared out over the ranks, and writes the manifest. All ranks call it.

    Args:
        known: digests of files as they were written, which are not read again.
    """
    ranks, known = ranks or Ranks(), known or {}
    names = [name for name in _files(folder) if name not in known]
    own = {name: file_sha256(folder / name) for name in names[ranks.rank :: ranks.size]}
    hashes = {name: digest for part in (known, *ranks.gather(own)) for name, digest in part.items()}
    if ranks.first:
        manifest = Manifest(step, strategy, num_ranks, dict(sorted(hashes.items())))
        (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def damage(folder: Path, ranks: Ranks | None = None) -> str:
    """What is wrong with a checkpoint, or nothing. All ranks call it, each reads its share of the files."""
    ranks = ranks or Ranks()
    try:
        expected = read_manifest(folder).sha256
    except UserError as error:
        return str(error)
    found = set(_files(folder))
    if missing := sorted(set(expected) - found):
        return f"{folder / missing[0]} is missing"
    if surplus := sorted(found - set(expected)):
        return f"{folder / surplus[0]} is not in its {MANIFEST}"
    own = sorted(expected)[ranks.rank :: ranks.size]
    wrong = [name for name in own if file_sha256(folder / name) != expected[name]]
    wrong = [name for part in ranks.gather(wrong) for name in part]
    return f"{folder / wrong[0]} does not fit its checksum" if wrong else ""


def link_or_copy(source: Path, target: Path) -> None:
    """One file under two names where the file system can, so that the second takes no room; both may be removed."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(str(path.relative_to(folder)) for path in paths)


class Checkpoints:
    """The checkpoints of one stage under `work`; a file system that all ranks see.

    Args:
        keep: number of the newest that stay.
        keep_every_steps: those of multiples of this stay too; 0 for none.
    """

    def __init__(self, work: Path, ranks: Ranks, keep: int, keep_every_steps: int) -> None:
        self.folder = work / "checkpoints"
        self._shared: dict[str, str] = {}
        self._ranks, self._keep, self._keep_every = ranks, keep, keep_every_steps
        if ranks.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            for partial in self.folder.glob(".*"):  # of a run that was killed while it wrote
                shutil.rmtree(partial, ignore_errors=True)
        ranks.wait()

    def newest(self) -> Checkpoint | None:
        """The newest that is whole; newer ones that are not are named. All ranks call it."""
        for folder in self._ranks.of_first(sorted(self.folder.glob("step-*"), reverse=True)):
            problem = damage(folder, self._ranks)
            if not problem:
                return Checkpoint(folder, read_manifest(folder))
            if self._ranks.first:
                log.warning("%s: the checkpoint before it is used", problem)
        return None

    def share(self, name: str, write: Callable[[Path], None]) -> None:
        """Writes a file beside the checkpoints, once, that each new one holds as its own. All ranks call it.

        Its digest is that of what was written: damage to it later shows in every checkpoint.

        Raises:
            UserError: the disk is full.
        """
        digest = ""
        if self._ranks.first:
            try:
                with publish(self.folder.parent / name) as temporary:
                    write(temporary)
                    digest = file_sha256(temporary)
            except (OSError, SafetensorError) as error:
                raise _full_disk(error, self.folder) from error
        self._shared[name] = self._ranks.of_first(digest)

    @contextmanager
    def new(self, step: int, strategy: str) -> Iterator[Path]:
        """Yields an empty folder that becomes the checkpoint of `step` when all ranks have left the block.

        Raises:
            UserError: the disk is full; the checkpoints before stay.
        """
        final = self.folder / f"step-{step:08d}"
        partial = final.with_name(f".{final.name}.partial")
        try:
            if self._ranks.first:
                partial.mkdir()
                for name in self._shared:
                    link_or_copy(self.folder.parent / name, partial / name)
            self._ranks.wait()
            yield partial
            self._ranks.wait()
            write_manifest(partial, step, strategy, self._ranks.size, self._ranks, self._shared)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _full_disk(error, self.folder) from error
        if self._ranks.first:
            shutil.rmtree(final, ignore_errors=True)  # damaged, and now written again
            partial.replace(final)
            self._prune()
        self._ranks.wait()

    def _prune(self) -> None:
        for folder in sorted(self.folder.glob("step-*"))[: -self._keep]:
            step = int(folder.name.split("-")[1])
            if not self._keep_every or step % self._keep_every:
                shutil.rmtree(folder)


def _full_disk(error: Exception, folder: Path) -> Exception:
    """The user's error where the disk is full; the writers of torch and safetensors say so in words of their own."""
    cause: BaseException | None = error
    while cause is not None:
        if (isinstance(cause, OSError) and cause.errno in _FULL) or _FULL_IN_WORDS.search(str(cause)):
            free = shutil.disk_usage(folder).free / 1e9
            return UserError(
                f"{folder}: a checkpoint could not be written, {free:.1f} GB are free ({error}). The last good one"
                " stays: make room, or lower training.keep_checkpoints, and start the stage again to go on from it"
            )
        cause = cause.__cause__ or cause.__context__
    return error
