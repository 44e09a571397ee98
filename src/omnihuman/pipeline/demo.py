"""From a profile to a rendered sample in one call."""

from collections.abc import Sequence
from pathlib import Path

from omnihuman.config.compose import compose, dump
from omnihuman.config.load import PARAMS
from omnihuman.pipeline.graph import repro
from omnihuman.storage.files import publish


def demo(profile: str, overrides: Sequence[str]) -> int:
    """Composes params.yaml and runs what is stale of the graph, in the current directory; returns an exit code.

    Raises:
        UserError: the configuration is wrong; params.yaml stays as it was.
    """
    text = dump(compose(profile, overrides))
    with publish(PARAMS) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return repro(Path.cwd())
