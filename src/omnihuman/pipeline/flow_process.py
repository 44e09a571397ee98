"""A flow as a command: what it prints and with which code it exits. Flows themselves raise."""

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from omnihuman.errors import UserError


class StepFailed(Exception):
    """A step of the graph, or other supervised work, failed and has said why."""

    def __init__(self, step: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"{step} ended with exit code {exit_code}")


def as_command(flow: Callable[[], Any]) -> int:
    """Runs a flow and returns its exit code: that of a failed step, 2 for the user's mistake, 130 when interrupted.

    SIGTERM ends it like Ctrl-C: Prefect's temporary server would otherwise outlive it.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)
    try:
        flow()
    except StepFailed as failed:
        return failed.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _without_traceback(record: logging.LogRecord) -> bool:
    """A step's failure and a user's mistake explain themselves; only a defect needs its traceback."""
    if record.exc_info and isinstance(record.exc_info[1], StepFailed | UserError):
        record.exc_info = record.exc_text = None
    return True
