"""Metrics per step, sent in batches, none of them twice."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from omnihuman.errors import UserError
from omnihuman.tracking.server import impatient, server_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)
_BATCH = 1000  # MLflow's limit
_SECONDS_BETWEEN = 10.0
_MAX_SECONDS_BETWEEN = 300.0


class Curves:
    """The metrics of one run. A server that is away for a while costs nothing: the points wait in memory."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._pending: list[Metric] = []
        self._pause = _SECONDS_BETWEEN
        self._next = time.monotonic() + self._pause
        known = client.get_run(run_id).data.metrics
        self._last_step = {
            key: max(metric.step for metric in client.get_metric_history(run_id, key)) for key in sorted(known)
        }

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keeps the values of a step; those that the run already has, also from before a kill, are left out.

        The steps of each metric must come in order.
        """
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        for key, value in metrics.items():
            if step > self._last_step.get(key, -1):
                self._last_step[key] = step
                self._pending.append(Metric(key, float(value), now, step))
        if time.monotonic() >= self._next:
            self._try_to_send()

    def send(self) -> None:
        """Sends all that is pending.

        Raises:
            UserError: the server is away.
        """
        with server_errors():
            while self._pending:
                self._client.log_batch(self._run_id, metrics=self._pending[:_BATCH])
                del self._pending[:_BATCH]

    def _try_to_send(self) -> None:
        """One short try, and ever longer pauses after failed ones: training must not wait for a server."""
        try:
            with impatient():
                self.send()
            self._pause = _SECONDS_BETWEEN
        except UserError as error:
            self._pause = min(2 * self._pause, _MAX_SECONDS_BETWEEN)
            log.warning("%d metrics wait for %.0f s: %s", len(self._pending), self._pause, error)
        self._next = time.monotonic() + self._pause
