"""From plain trees, as YAML gives them, to the schema's dataclasses: every key known, every value of its type."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omnihuman.config.schema.root import Params
from omnihuman.errors import UserError

Schema = TypeVar("Schema")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "nothing"}


def validate(tree: Any, where: str, schema: Any = Params, name: str = "", known: Sequence[str] = ()) -> None:
    """Checks keys and types of a tree that may hold any part of the schema.

    Args:
        known: all dotted names, where they are not those of params.yaml.

    Raises:
        UserError: a key is unknown or a value is of another type; `where` says in which file or argument.
    """
    if not is_dataclass(schema) and get_origin(schema) is not dict:
        _check_value(tree, where, schema, name)
        return
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}: {name or 'the file'} is {tree!r}, expected a section of `key: value` lines")
    for key, value in tree.items():
        child = None if "." in str(key) else hint_of(schema, str(key))
        if child is None:
            raise unknown_key(f"{name}.{key}".lstrip("."), where, known)
        validate(value, where, child, f"{name}.{key}".lstrip("."), known)


def hint_of(schema: Any, name: str) -> Any:
    """The annotation at a dotted name below `schema`; None where there is no such key."""
    for key in name.split("."):
        if get_origin(schema) is dict:
            schema = get_args(schema)[1]
        elif is_dataclass(schema):
            schema = get_type_hints(schema).get(key)
        else:
            return None
    return schema


def unknown_key(name: str, where: str, known: Iterable[str] = ()) -> UserError:
    """The error for a key that does not exist, with the nearest of `known`, or else of the whole schema."""
    known = tuple(known) or tuple(names_of(Params))
    section, _, key = name.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    nearest = [siblings[near] for near in get_close_matches(key, siblings, 1)] or get_close_matches(name, known, 1, 0.5)
    remedy = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(siblings or known)}"
    return UserError(f"{where}: unknown key {name}; {remedy}")


def instantiate(schema: type[Schema], tree: Mapping[str, Any], name: str = "") -> Schema:
    """Builds a dataclass of the schema from a validated tree; keys left out take the schema's defaults.

    Raises:
        UserError: a key without a default is missing.
    """
    hints = get_type_hints(schema)
    try:
        return schema(**{key: _convert(hints[key], value, f"{name}.{key}".lstrip(".")) for key, value in tree.items()})
    except TypeError as error:  # the constructor names the missing arguments
        raise UserError(f"{name or 'params.yaml'}: {error.args[0].partition(') ')[2]}") from error


def _convert(hint: Any, value: Any, name: str) -> Any:
    if is_dataclass(hint):
        return instantiate(hint, value, name)  # pyright: ignore[reportArgumentType]  # a hint is a class, not an object
    if get_origin(hint) is dict:
        return {key: _convert(get_args(hint)[1], entry, f"{name}.{key}") for key, entry in value.items()}
    if get_origin(hint) is tuple:
        return tuple(value)
    if value is not None and float in (hint, *get_args(hint)):
        return float(value)
    return value


def _check_value(value: Any, where: str, hint: Any, name: str) -> None:
    if not _fits(value, hint):
        raise UserError(f"{where}: {name} is {value!r}, expected {_describe(hint)}")
    if "${" in str(value):  # DVC would hand it on as it stands
        raise UserError(f"{where}: {name} is {value!r}; references to other keys are not resolved, write the value out")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is UnionType:
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        items = get_args(hint)
        items = items[:1] * len(value) if items[-1] is Ellipsis else items
        return len(value) == len(items) and all(map(_fits, value, items))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    if hint is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is UnionType:
        return " or ".join(_describe(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        items = get_args(hint)
        length = "" if items[-1] is Ellipsis else f" of {len(items)}"
        return f"a list{length}, each {_describe(items[0])}"
    return _WORDS[hint]


def names_of(schema: Any, prefix: str = "") -> Iterator[str]:
    """All dotted names of the schema; entries of a dict are shown as NAME."""
    for key, hint in get_type_hints(schema).items():
        yield prefix + key
        if get_origin(hint) is dict:
            yield from names_of(get_args(hint)[1], f"{prefix}{key}.NAME.")
        elif is_dataclass(hint):
            yield from names_of(hint, f"{prefix}{key}.")
