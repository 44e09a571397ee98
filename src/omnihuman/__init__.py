"""OmniHuman: train, compare, release and run models that turn one picture and a driving signal into video."""

import os

__version__ = "0.1.0"

# Each is read when its package is imported, so it must be said before any of ours imports one.
for _variable, _value in (
    ("DO_NOT_TRACK", "1"),
    ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
):
    os.environ.setdefault(_variable, _value)
