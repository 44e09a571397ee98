"""From a profile to a rendered sample and a table of figures in one call."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omnihuman.config.compose import compose, dump
from omnihuman.config.load import PARAMS
from omnihuman.pipeline.services import flow_environment
from omnihuman.pipeline.supervisor import run_supervised
from omnihuman.pipeline.workplace import workplace
from omnihuman.storage.files import publish


def demo(profile: str, overrides: Sequence[str]) -> int:
    """Composes params.yaml and runs flows/pipeline.py in the current directory, on the services that are up if any.

    Waits for another run in this checkout first, and says so.

    Returns:
        The exit code: that of a failed step, else 0.

    Raises:
        UserError: the configuration is wrong, params.yaml stays as it was; or a server is named but does not answer.
    """
    text = dump(compose(profile, overrides))
    env = flow_environment(os.environ)
    with workplace(Path.cwd()) as place:
        if not PARAMS.is_file() or PARAMS.read_text(encoding="utf-8") != text:
            with publish(PARAMS) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return run_supervised([sys.executable, "-m", "flows.pipeline"], place.folder, {**place.env, **env})
