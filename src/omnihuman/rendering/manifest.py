"""What a batch is: jobs with the hashes of their inputs, and the one version of the model that renders them all."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.inference.provenance import ModelIdentity, Parameters, Provenance, content_id, sidecar_path
from omnihuman.inference.request import InputOptions, RenderRequest
from omnihuman.rendering.jobs import Job, only
from omnihuman.storage.files import file_sha256, publish

MANIFEST = "manifest.json"
_STEM_CHARACTERS = 60


@dataclass(frozen=True)
class Item:
    """One video to render; jobs that are equal in content share it."""

    id: str
    """Of the hashes of its inputs, the model, the parameters and the seed."""
    lines: tuple[int, ...]
    files: Mapping[str, str]
    """Absolute paths by role: image, audio, pose."""
    hashes: Mapping[str, str]
    parameters: Parameters
    outputs: tuple[str, ...]
    """Below the output folder."""

    def request(self, output: Path) -> RenderRequest:
        """What to render, into a file of this name."""
        told = self.parameters
        chosen = tuple(filter(None, str(told["conditions"]).split(","))) if "conditions" in told else None
        files = {role: Path(file) for role, file in self.files.items()}
        request = RenderRequest.of(files, output, str(told["text"]), int(told["seed"]))
        return replace(request, conditions=chosen, options=InputOptions(**only(told, InputOptions)))

    def finished_in(self, folder: Path) -> list[str]:
        """Outputs whose video lies there unchanged with this content."""
        return [name for name in self.outputs if is_finished(folder / name, self.id)]


@dataclass(frozen=True)
class Manifest:
    """Never changed once it is written: another submission into the same folder writes another one."""

    model: ModelIdentity
    items: tuple[Item, ...]

    @property
    def id(self) -> str:
        """Of the content."""
        return hashlib.sha256(self._text().encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes manifest.json; one with another content is kept as manifest-ID.json."""
        path = folder / MANIFEST
        if path.is_file():
            before = self.load(folder)
            if before == self:
                return
            path.rename(folder / f"manifest-{before.id[:12]}.json")
        with publish(path) as temporary:
            temporary.write_text(self._text(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Reads the manifest of a folder.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        path = folder / MANIFEST
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            return cls(ModelIdentity(**told["model"]), tuple(map(_item, told["items"])))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; `omnihuman batch submit JOBS` writes one") from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is no manifest of a batch ({error!r}); give another --output") from error

    def _text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def _item(told: dict[str, Any]) -> Item:
    return Item(**{**told, "lines": tuple(told["lines"]), "outputs": tuple(told["outputs"])})


def hash_inputs(jobs: Iterable[Job]) -> dict[Path, str]:
    """sha256 of every input file, each read once.

    Raises:
        UserError: files cannot be read; all are named with their lines.
    """
    hashes: dict[Path, str] = {}
    errors = []
    for job in jobs:
        for role, path in job.files.items():
            if path not in hashes:
                try:
                    hashes[path] = file_sha256(path)
                except OSError as error:
                    errors.append(f"line {job.line}, {role}: {path}: {error.strerror}")
    if errors:
        raise UserError("\n  ".join(["jobs whose files cannot be read, nothing was rendered", *errors]))
    return hashes


def plan(jobs: Iterable[Job], hashes: Mapping[Path, str], model: ModelIdentity) -> Manifest:
    """Jobs as items: equal ones become one, and outputs without a name take one from picture and content.

    Raises:
        UserError: a job names the output that another without a name gets.
    """
    items: dict[str, list[Job]] = {}
    for job in jobs:
        inputs = {role: hashes[path] for role, path in job.files.items()}
        items.setdefault(content_id(inputs, model.sha256, job.parameters()), []).append(job)
    planned = tuple(_planned(key, equal, hashes) for key, equal in items.items())
    names = [name for item in planned for name in item.outputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two different jobs write {twice}: give each of them an output of its own")
    return Manifest(model, planned)


def _planned(key: str, jobs: list[Job], hashes: Mapping[Path, str]) -> Item:
    first = jobs[0]
    outputs = [job.output or f"{job.files['image'].stem.lstrip('.')[:_STEM_CHARACTERS]}-{key[:12]}.mp4" for job in jobs]
    return Item(
        id=key,
        lines=tuple(job.line for job in jobs),
        files={role: str(path) for role, path in first.files.items()},
        hashes={role: hashes[path] for role, path in first.files.items()},
        parameters=first.parameters(),
        outputs=tuple(dict.fromkeys(outputs)),
    )


def is_finished(video: Path, key: str) -> bool:
    """Whether the video is whole and unchanged, and its sidecar tells of this content."""
    try:
        told = Provenance.load(video)
        return told.content_id == key and file_sha256(video) == told.video_sha256
    except (UserError, OSError):
        return False


def finished_videos(folder: Path, keys: Iterable[str]) -> dict[str, Path]:
    """Videos anywhere in the folder that hold the wanted contents, whatever their names."""
    wanted = set(keys)
    return {key: video for key, video in _described(folder) if key in wanted and is_finished(video, key)}


def _described(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*.mp4.json")):
        video = path.with_suffix("")
        try:
            yield Provenance.load(video).content_id, video
        except UserError:  # a JSON of somebody else's
            continue


def put(source: Path, target: Path, provenance: Provenance) -> None:
    """Gives a finished video one more name: a hard link, or a copy where links cannot be made; then its sidecar."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sidecar_path(target).unlink(missing_ok=True)
    with publish(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
    provenance.save(target)
