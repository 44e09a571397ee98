"""Composition: schema defaults <- conf/ groups <- the profile's own keys <- overrides -> params.yaml."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from omnihuman.config.checks import check
from omnihuman.config.load import PARAMS, read_yaml
from omnihuman.config.schema.collect import Collect
from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.root import Params
from omnihuman.config.schema.score import Score
from omnihuman.config.schema.stage import Stage
from omnihuman.config.stage_checks import ancestors
from omnihuman.config.strict import hint_of, instantiate, unknown_key, validate
from omnihuman.errors import UserError
from omnihuman.nested import leaves

CONF = Path("conf")
GROUPS = ("corpus", "model", "recipe", "policy", "compute", "sampling")
DEBUG = "debug"
"""A group that no profile names; where an override does, its file comes after the profile's own keys."""
SYNTHETIC = "synthetic"
S3 = "s3://"
_SOURCES = f"a folder of videos, a list or table of them, {S3}bucket/prefix, or {SYNTHETIC}"
HEADER = "# Composed from conf/ by `omnihuman config compose`; never edited by hand.\n"
RIGHTS = ("licence", "consent_basis", "rights_holder")
"""Keys of `collect` that must be written for people's videos, if only as `unknown`."""
_OWN_KEYS = ("profile", "overrides", "collect.depends_on", "score.imported_sha256", "evaluate.model")
_ENTRIES = ("stages", "decide.rules")
"""Sections with free names; conf/stage and conf/policy make the entries, everything else may only alter them."""


@dataclass(frozen=True)
class _Layer:
    where: str
    tree: dict[str, Any]


def compose(profile: str, overrides: Sequence[str] = (), conf: Path = CONF) -> Params:
    """The complete, checked configuration of a profile with `key=value` overrides.

    A relative `collect.source` counts from the current directory and is recorded as an absolute path, so that
    composing again elsewhere gives the same. `groups.recipe=NAME` picks another file of a group.

    Raises:
        UserError: an unknown profile, group file or key, a value of the wrong type, or a broken rule.
    """
    tree = read_yaml(choose(conf / "profile", profile, "profile"))
    choices = tree.pop("groups", {})
    settled = [_settle(override) for override in overrides]
    for override in settled:
        if override.startswith("groups."):
            group, _, name = override.removeprefix("groups.").partition("=")
            choices = {**choices, group: name}
    debug = choices.pop(DEBUG, None)
    groups = list(_group_layers(choices, conf, f"conf/profile/{profile}.yaml"))
    own = [_Layer(f"conf/profile/{profile}.yaml", tree)]
    own += [_group_layer(DEBUG, debug, conf)] if debug else []
    own += [_override_layer(override) for override in settled if not override.startswith("groups.")]
    layers = [*_stage_layers(conf), *groups, *own]
    _validate_layers(layers)
    merged = OmegaConf.to_container(OmegaConf.merge(*(layer.tree for layer in layers)))
    recorded = {"profile": profile, "overrides": settled}
    params = instantiate(Params, recorded | cast(dict[str, Any], merged))
    collect, score = _settle_source(params.collect, own), _settle_imported(params.score)
    encode = _settle_places(params.encode)
    stages = _settle_stages(params.stages)
    evaluate = replace(params.evaluate, model=f"models/{list(stages)[-1]}" if stages else "")
    params = replace(params, collect=collect, score=score, encode=encode, stages=stages, evaluate=evaluate)
    check(params)
    return params


def dump(params: Params) -> str:
    """The text of params.yaml. Keys without a value are left out, because DVC would hand them on as None."""
    return HEADER + yaml.safe_dump(_without_none(asdict(params)), sort_keys=False, allow_unicode=True, width=120)


def stale_keys(path: Path = PARAMS, conf: Path = CONF) -> list[str]:
    """One line for each key in which params.yaml differs from what its profile and overrides give now.

    Raises:
        UserError: params.yaml cannot be composed again.
    """
    found = read_yaml(path)
    origin = {"profile": found.get("profile", ""), "overrides": found.get("overrides", [])}
    validate(origin, str(path))
    expected = yaml.safe_load(dump(compose(**origin, conf=conf)))  # as a file gives it back
    old, new = dict(leaves(found)), dict(leaves(expected))
    return [
        f"{key}: {old.get(key, 'nothing')} in {path}, {new.get(key, 'nothing')} when composed"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def choose(folder: Path, name: str, kind: str) -> Path:
    """The file of a profile, a group or a protocol.

    Raises:
        UserError: there is none of this name; the message lists those that exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; run this in the project's folder")
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in names:
        nearest = get_close_matches(str(name), names, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"unknown {kind} {name!r}, one of {', '.join(names)}{hint}")
    return folder / f"{name}.yaml"


def _group_layers(choices: Any, conf: Path, where: str) -> Iterator[_Layer]:
    validate(choices, where, dict[str, str], "groups")
    for group in choices.keys() - set(GROUPS):
        raise unknown_key(f"groups.{group}", where, [f"groups.{known}" for known in (*GROUPS, DEBUG)])
    for group in GROUPS:
        if group not in choices:
            raise UserError(f"{where}: groups.{group} is missing, name a file of {conf / group}")
        yield _group_layer(group, choices[group], conf)


def _group_layer(group: str, name: str, conf: Path) -> _Layer:
    path = choose(conf / group, name, group)
    return _Layer(f"conf/{group}/{path.name}", read_yaml(path))


def _stage_layers(conf: Path) -> Iterator[_Layer]:
    for path in sorted((conf / "stage").glob("*.yaml")):
        yield _Layer(f"conf/stage/{path.name}", {"stages": {path.stem: read_yaml(path)}})


def _settle(override: str) -> str:
    key, equals, value = override.partition("=")
    if not (key and equals):
        raise UserError(f"{override!r} is not an override; write key=value, e.g. encode.num_frames=17")
    if key == "collect.source" and value != SYNTHETIC and not value.startswith(S3):
        if not value:
            raise UserError(f"collect.source is empty; name {_SOURCES}")
        value = str(Path(value).expanduser().absolute())
    return f"{key}={value}"


def _override_layer(override: str) -> _Layer:
    key, _, text = override.partition("=")
    hint = hint_of(Params, key)
    if hint is None:
        raise unknown_key(key, override)
    tree: Any = text if hint is str else _parse(text, override)  # paths with colons and quotes stay as they are
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return _Layer(override, tree)


def _parse(text: str, override: str) -> Any:
    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])))["value"]
    except yaml.YAMLError as error:
        raise UserError(f"{override}: the value is not YAML; quote it or close its brackets") from error


def _validate_layers(layers: Sequence[_Layer]) -> None:
    """Keys and types of each layer, named by where they stand; free names must have been made by their own files."""
    made: set[str] = set()
    for layer in layers:
        validate(layer.tree, layer.where)
        for key in _OWN_KEYS:
            if _at(layer.tree, key) is not None:
                raise UserError(f"{layer.where}: {key} is set by composition; remove it")
        for section in _ENTRIES:
            names = {f"{section}.{name}" for name in _at(layer.tree, section) or {}}
            if layer.where.startswith(("conf/stage/", "conf/policy/")):
                made |= names
            for name in sorted(names - made):
                raise unknown_key(name, layer.where, sorted(made))
        for name, stage in (_at(layer.tree, "stages") or {}).items():
            if "starts_from" in (stage or {}):
                raise UserError(
                    f"{layer.where}: stages.{name}.starts_from is set by composition; set parent or base instead"
                )


def _settle_stages(stages: dict[str, Stage]) -> dict[str, Stage]:
    """Leaves out what is not active, gives its children its parent, and sets what DVC hashes before each stage.

    The stages come in the order in which they are trained, so that the last one is the finished model.
    """
    settled = {}
    for name, stage in stages.items():
        if not stage.active:
            continue
        parent, passed = stage.parent, {name}
        while parent in stages and not stages[parent].active and parent not in passed:
            passed.add(parent)
            parent = stages[parent].parent
        starts_from = f"models/{parent}" if parent else stage.base or "data/encoded/encoders.json"
        settled[name] = replace(stage, parent=parent, starts_from=starts_from)
    return {name: settled[name] for name in sorted(settled, key=lambda name: len(ancestors(name, settled)))}


def _settle_source(collect: Collect, own: Sequence[_Layer]) -> Collect:
    """Sets what DVC hashes for `collect`, and demands that rights are stated for people's videos."""
    if collect.source == SYNTHETIC:
        return collect
    source = collect.source
    if not source.startswith(S3):
        path = Path(source).expanduser().absolute()
        if not path.exists():
            raise UserError(f"collect.source is {path}: no such folder or file; name {_SOURCES}")
        source = str(path)
    missing = [key for key in RIGHTS if not any(_at(layer.tree, f"collect.{key}") for layer in own)]
    if missing and not _states_rights(source):
        raise UserError(
            f"collect.source is {source}, but {' and '.join(f'collect.{key}' for key in missing)} are not stated; add"
            f" {' '.join(f'collect.{key}=...' for key in missing)} (`unknown` where it is not known)"
        )
    if Path(source).is_dir():
        _check_hashable(Path(source))
    # What is not stated is left empty, so that `collect` finds the row of a table that does not state it either.
    return replace(collect, source=source, depends_on=source, **dict.fromkeys(missing, ""))


def _settle_imported(score: Score) -> Score:
    """Makes the table's path absolute and notes its content."""
    if not score.imported:
        return score
    path = Path(score.imported).expanduser().absolute()
    if not path.is_file() or path.suffix.lower() not in (".parquet", ".csv"):
        raise UserError(
            f"score.imported is {path}: no such .parquet or .csv; name a table of scores, or leave it empty"
        )
    return replace(score, imported=str(path), imported_sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _settle_places(encode: Encode) -> Encode:
    """Makes folders absolute, because arms are computed in other folders."""
    places = {"shards_at": encode.shards_at, "imported": encode.imported}
    absolute = {
        key: str(Path(place).expanduser().absolute())
        for key, place in places.items()
        if place and not place.startswith(S3)
    }
    return replace(encode, **absolute)


def _states_rights(source: str) -> bool:
    """Whether the source is a table, which may have a column for each right."""
    return source.lower().endswith((".parquet", ".csv")) and Path(source).is_file()


def _check_hashable(folder: Path) -> None:
    """DVC hashes the whole folder before any step can look at it, and stops at these two kinds of files."""
    for path in folder.rglob("*"):
        if not path.exists():
            raise UserError(f"collect.source: {path} is a link that leads nowhere; remove it")
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"collect.source: the name {os.fsencode(path)!r} is not in UTF-8; rename it") from error


def _at(tree: Any, name: str) -> Any:
    for key in name.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in tree.items() if value is not None}
    return {key: _without_none(value) if isinstance(value, dict) else value for key, value in kept.items()}
