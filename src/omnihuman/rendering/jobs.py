"""Jobs as JSON Lines: every line is parsed, typed and checked before anything runs."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from omnihuman.config.checks import check
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.config.schema.root import Params
from omnihuman.config.strict import unknown_key
from omnihuman.errors import UserError
from omnihuman.inference.activation import CHOOSABLE, active_conditions
from omnihuman.inference.pose_inputs import known_weights
from omnihuman.inference.request import InputOptions

ROLES = ("image", "audio", "pose", "image_pose", "video")
FIELDS: dict[str, type] = {
    "image": str, "audio": str, "pose": str, "image_pose": str, "video": str, "text": str, "seed": int,
    "output": str, "conditions": list, "parameters": dict,
}  # fmt: skip
PARAMETERS: dict[str, type] = {
    **get_type_hints(Sampling), **get_type_hints(Render), **get_type_hints(InputOptions),
}  # fmt: skip
"""What a job may set instead of the value in params.yaml."""
_MAX_DIGITS = 20  # of a seed of 64 bits
_WORDS = {
    str: "text", bool: "true or false", int: f"a whole number of at most {_MAX_DIGITS} digits",
    float: "a finite number", dict: "an object", list: "a list such as [\"text\", \"audio\"]",
}  # fmt: skip
_MAX_ERRORS = 100
_MAX_NAME_BYTES = 200  # leaves room for the suffixes of the sidecar and of temporary files
_MAX_SHOWN = 200  # characters of what is wrong, in a message


@dataclass(frozen=True)
class Job:
    """One checked line."""

    line: int  # from 1
    files: dict[str, Path]
    """Absolute, by role."""
    text: str
    seed: int
    output: str | None
    """Path below the output folder; None where the line names none."""
    conditions: tuple[str, ...] | None
    """Those to activate; None follows the rules."""
    sampling: Sampling
    render: Render
    options: InputOptions

    def parameters(self) -> dict[str, str | int | float]:
        """All that decides on the video beside the model and the input files."""
        options = self.options.told(has_pose="pose" in self.files or "video" in self.files)
        settings = {**options, **asdict(self.sampling), **asdict(self.render)}
        chosen = {} if self.conditions is None else {"conditions": ",".join(self.conditions)}
        return {"text": self.text, "seed": self.seed, **chosen, **settings}


def read_jobs(path: Path, output: Path, params: Params) -> list[Job]:
    """Reads a file of jobs, one JSON object a line; blank lines do not count.

    Args:
        output: folder into which the videos go; it need not exist.
        params: sampling and rendering of jobs that set no parameters.

    Raises:
        UserError: everything that is wrong in the file, each with its line and field.
    """
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"jobs {path}: {error.strerror}; give a file with one JSON object a line") from error
    jobs, errors = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        reader = _LineReader(number, path.absolute().parent, output.absolute(), params)
        job = reader.read(line)
        errors += reader.errors
        if job is not None:
            jobs.append(job)
    errors += _clashes(jobs)
    if errors:
        raise UserError(_joined(path, errors))
    if not jobs:
        raise UserError(
            f"jobs {path}: holds no jobs; write one JSON object a line, such as" + ' {"image": "a.png", ...}'
        )
    return jobs


def _joined(path: Path, errors: list[str]) -> str:
    count = f"{len(errors)} mistakes" if len(errors) > 1 else "one mistake"
    left = [f"and {len(errors) - _MAX_ERRORS} more"] if len(errors) > _MAX_ERRORS else []
    return "\n  ".join([f"jobs {path}: {count}, nothing was rendered", *errors[:_MAX_ERRORS], *left])


class _LineReader:
    """Reads one line and collects what is wrong in it."""

    def __init__(self, number: int, inputs: Path, output: Path, params: Params) -> None:
        self.number, self.inputs, self.output, self.params = number, inputs, output, params
        self.errors: list[str] = []

    def read(self, line: bytes) -> Job | None:
        """The job, or None where something is wrong with it."""
        told = self._parse(line)
        if told is None:
            return None
        told = {key: value for key, value in told.items() if value is not None}
        values = self._typed(told, FIELDS, "")
        if "image" not in told:
            self._blame("image", "is missing; it names the picture of the person")
        if not {"audio", "pose", "video"} & set(told):
            self._blame("audio", "is missing, and so is pose; one of them, or video, drives it")
        if "pose" in told and "video" in told:
            self._blame("video", "gives a pose, and so does pose; leave one out")
        if "image_pose" in told and not {"pose", "video"} & set(told):
            self._blame("image_pose", "acts with pose only, and pose is missing")
        files = {role: self._file(role, values[role]) for role in ROLES if role in values}
        name = self._named(values["output"]) if "output" in values else None
        parameters = self._typed(values.get("parameters", {}), PARAMETERS, "parameters.")
        sampling, render = self._parameters(parameters)
        options = self._options(parameters, told)
        conditions = self._conditions(values["conditions"], files, options) if "conditions" in values else None
        if self.errors:
            return None
        text, seed = values.get("text", ""), values.get("seed", 0)
        return Job(self.number, files, text, seed, name, conditions, sampling, render, options)

    def _blame(self, field: str, what: str) -> None:
        self.errors.append(f"line {self.number}, {field}: {what}")

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            told = json.loads(line.decode("utf-8"), object_pairs_hook=_without_repetition, parse_int=_whole)
        except UnicodeDecodeError:
            self.errors.append(f"line {self.number}: is no UTF-8")
        except json.JSONDecodeError as error:
            self.errors.append(f"line {self.number}, column {error.colno}: is no JSON ({error.msg})")
        except (ValueError, RecursionError) as error:
            self.errors.append(f"line {self.number}: {error}")
        else:
            if isinstance(told, dict):
                return told
            self.errors.append(f"line {self.number}: is no JSON object, write {{...}}")
        return None

    def _typed(self, told: dict[str, Any], types: dict[str, type], prefix: str) -> dict[str, Any]:
        """The values of known keys that have their types; blames the others."""
        fitting = {}
        for key, value in told.items():
            if key not in types:
                known = [prefix + name for name in types]
                self.errors.append(str(unknown_key(prefix + key, f"line {self.number}", known)))
            elif not _fits(value, types[key]):
                self._blame(prefix + key, f"is {json.dumps(value)}, expected {_WORDS[types[key]]}")
            else:
                fitting[key] = float(value) if types[key] is float else value
        return fitting

    def _file(self, role: str, value: str) -> Path:
        path = self.inputs / value
        try:
            if not path.is_file():
                self._blame(role, f"{path}: no such file")
            elif path.stat().st_size == 0:
                self._blame(role, f"{path}: the file is empty")
        except (OSError, ValueError) as error:  # a name that no file can have
            self._blame(role, f"{path}: {error}")
        return path

    def _named(self, value: str) -> str:
        try:
            return self._output(value)
        except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, or a loop of links
            reason = getattr(error, "strerror", None) or str(error)
            self._blame("output", f"{_shortened(json.dumps(value))}: {_shortened(reason)}; give another")
            return value

    def _output(self, value: str) -> str:
        path = self.output / value
        if not path.resolve().is_relative_to(self.output.resolve()) or Path(value).is_absolute():
            self._blame("output", f"{value} leaves the output folder {self.output}; give a name inside it")
            return value
        name = path.resolve().relative_to(self.output.resolve())
        if not name.parts:
            self._blame("output", f"names the output folder itself ({json.dumps(value)}), give a name such as a.mp4")
        elif name.suffix != ".mp4":
            self._blame("output", f"{value}: only .mp4 can be written, name it {Path(value).with_suffix('.mp4')}")
        elif any(part.startswith(".") for part in name.parts):
            self._blame("output", f"{value}: a name that begins with a dot is hidden, give another")
        elif max(len(part.encode()) for part in name.parts) > _MAX_NAME_BYTES:
            self._blame("output", f"{value}: is longer than {_MAX_NAME_BYTES} bytes")
        elif path.is_dir():
            self._blame("output", f"{value}: a folder has this name")
        return str(name)

    def _options(self, values: dict[str, Any], told: dict[str, Any]) -> InputOptions:
        encode, options = self.params.encode, InputOptions(**only(values, InputOptions))
        if not options.pose_weights:
            options = replace(options, pose_weights=encode.pose_weights, pose_sha256=encode.pose_sha256)
        else:
            options = replace(options, pose_weights=str(self.inputs / options.pose_weights))
        try:
            options.check()
            if {"pose", "video"} & set(told):
                options = known_weights(options)
        except UserError as error:
            self._blame("parameters", str(error))
        if options.video_sound and ("video" not in told or "audio" in told):
            self._blame("parameters.video_sound", "takes the sound of video; give video, and no audio")
        return options

    def _conditions(self, named: list[Any], files: dict[str, Path], options: InputOptions) -> tuple[str, ...]:
        chosen = tuple(str(name) for name in named)
        try:
            active_conditions("audio" in files or options.video_sound, bool({"pose", "video"} & set(files)), chosen)
        except UserError as error:
            self._blame("conditions", str(error))
        return tuple(name for name in CHOOSABLE if name in chosen)  # in any order they make one video

    def _parameters(self, values: dict[str, Any]) -> tuple[Sampling, Render]:
        sampling = replace(self.params.sampling, **only(values, Sampling))
        render = replace(self.params.render, **only(values, Render))
        try:
            check(replace(self.params, sampling=sampling, render=render))
        except UserError as error:
            self.errors += [f"line {self.number}, parameters: {problem}" for problem in str(error).splitlines()]
        return sampling, render


def only(values: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """Of parameters, those of one section."""
    return {key: value for key, value in values.items() if key in get_type_hints(schema)}


def _whole(digits: str) -> int | float:
    """A whole number; one of absurd length as the float that no field for whole numbers takes."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ..."


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return False  # half of a character: no file and no sidecar can hold it
    return isinstance(value, kind)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice} stands there twice")
    return told


def _clashes(jobs: list[Job]) -> Iterator[str]:
    """Two jobs with one output, or an output that would have to be a folder for another."""
    lines: dict[str, int] = {}
    for job in jobs:
        if job.output is None:
            continue
        if job.output in lines:
            yield f"line {job.line}, output: {job.output} is the output of line {lines[job.output]} too"
        lines.setdefault(job.output, job.line)
    for name, line in lines.items():
        for parent in map(str, Path(name).parents):
            if parent in lines:
                yield f"line {line}, output: {name} needs a folder where line {lines[parent]} writes {parent}"
