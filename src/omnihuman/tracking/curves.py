"""Metrics per step, sent in batches, none of them twice."""

import json
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.tracking.server import impatient, server_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
_BATCH = 1000  # MLflow's limit
_SECONDS_BETWEEN = 10.0
_MAX_SECONDS_BETWEEN = 300.0


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    name: str
    value: float
    milliseconds: int
    """When it was reported, since 1970."""
    step: int


class Curves:
    """The metrics of one run. A server that is away for a while costs nothing: the points wait.

    They wait in memory, and in a file where one is given, so that they are there when a killed process begins again.
    """

    def __init__(self, client: "MlflowClient", run_id: str, file: Path | None = None) -> None:
        self._client, self._run_id, self._file = client, run_id, file
        self._pending: list[Point] = []
        self._pause = _SECONDS_BETWEEN
        self._next = time.monotonic() + self._pause
        known = client.get_run(run_id).data.metrics
        self._last_step = {
            key: max(metric.step for metric in client.get_metric_history(run_id, key)) for key in sorted(known)
        }
        if file and file.is_file():
            self._take_up(file)

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps the values of a step; those that the run already has, also from before a kill, are left out.

        The steps of each metric must come in order.
        """
        now = time.time_ns() // 1_000_000
        points = [Point(key, float(value), now, step) for key, value in metrics.items()]
        new = [point for point in points if self._keep(point)]
        if self._file and new:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, new))
        if time.monotonic() >= self._next:
            self._try_to_send()

    def _take_up(self, file: Path) -> None:
        """Keeps what a killed process had not sent; it may have died in the middle of the last line."""
        for line in file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                self._keep(Point(*json.loads(line)))
        with publish(file) as temporary:
            temporary.write_text("".join(map(_line, self._pending)), encoding="utf-8")

    def _keep(self, point: Point) -> bool:
        if point.step <= self._last_step.get(point.name, -1):
            return False
        self._last_step[point.name] = point.step
        self._pending.append(point)
        return True

    def send(self) -> None:
        """Sends all that is pending.

        Raises:
            UserError: the server is away.
        """
        from mlflow.entities import Metric

        with server_errors():
            while self._pending:
                batch = [Metric(*astuple(point)) for point in self._pending[:_BATCH]]
                self._client.log_batch(self._run_id, metrics=batch)
                del self._pending[:_BATCH]
        if self._file:
            self._file.unlink(missing_ok=True)

    def _try_to_send(self) -> None:
        """One short try, and ever longer pauses after failed ones: training must not wait for a server.

        Nor must it stop for what stands before one: a gateway answers 404 while its server begins again.
        """
        from mlflow.exceptions import MlflowException

        try:
            with impatient():
                self.send()
            self._pause = _SECONDS_BETWEEN
        except (UserError, MlflowException) as error:
            self._pause = min(2 * self._pause, _MAX_SECONDS_BETWEEN)
            log.warning("%d metrics wait for %.0f s: %s", len(self._pending), self._pause, error)
        self._next = time.monotonic() + self._pause


def _line(point: Point) -> str:
    return json.dumps(astuple(point)) + "\n"
