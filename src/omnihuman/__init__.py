"""OmniHuman: train, compare, release and run models that turn one picture and a driving signal into video."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnihuman.inference.api import render as render
    from omnihuman.inference.generator import load_generator as load_generator

__version__ = "0.1.0"

# Each is read when its package is imported, so it must be said before any of ours imports one.
for _variable, _value in (
    ("DO_NOT_TRACK", "1"),
    ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
):
    os.environ.setdefault(_variable, _value)


def __getattr__(name: str) -> Any:
    """`render` and `load_generator`, imported when they are first used: torch takes seconds."""
    if name == "render":
        from omnihuman.inference.api import render

        return render
    if name == "load_generator":
        from omnihuman.inference.generator import load_generator

        return load_generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
