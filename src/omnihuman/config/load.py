"""Reading YAML files, and params.yaml as the schema's dataclasses."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from omnihuman.config.checks import check
from omnihuman.config.schema.root import Params
from omnihuman.config.strict import hint_of, instantiate, unknown_key, validate
from omnihuman.errors import UserError

PARAMS = Path("params.yaml")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain tree; `1e-3` is a number, a key given twice an error.

    Raises:
        UserError: the file is missing, is not YAML or holds no `key: value` lines.
    """
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; run this in the project's folder") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no `key: value` lines")
    return {str(key): value for key, value in tree.items()}


def load_params(path: Path = PARAMS) -> Params:
    """The whole of params.yaml.

    Raises:
        UserError: the file is missing, or holds an unknown key or a value that cannot be.
    """
    tree = read_yaml(path)
    validate(tree, str(path))
    params = instantiate(Params, tree)
    check(params)
    return params


def load_section(path: Path, name: str) -> Any:
    """One part of params.yaml by its dotted name, e.g. `collect` or `stages.2_audio.activate`.

    Raises:
        UserError: as `load_params`, or there is no such part.
    """
    part: Any = load_params(path)
    if hint_of(Params, name) is None:
        raise unknown_key(name, str(path))
    for key in name.split("."):
        if isinstance(part, dict) and key not in part:
            raise UserError(f"{path}: no {key} in {name}; there are {', '.join(part)}")
        part = part[key] if isinstance(part, dict) else getattr(part, key)
    return part
