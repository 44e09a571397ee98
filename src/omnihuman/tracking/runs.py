"""Runs in MLflow: parents for pipelines and arms, and one child for each step that goes on where it was killed."""

import json
import logging
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from omnihuman.storage.files import file_sha256, publish
from omnihuman.storage.work import held_work_folder
from omnihuman.tracking.curves import Curves
from omnihuman.tracking.entries import PARENT_TAG, PARENT_VARIABLE, log_data, log_parameters, open_client, parent_tags
from omnihuman.tracking.record import RunRecord, record_path
from omnihuman.tracking.server import impatient, prepare, server_errors
from omnihuman.tracking.values import flat_figures, git_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["PARENT_VARIABLE", "StepRun", "TrackedStep", "finish", "note_restored", "start_parent", "step_run"]
log = logging.getLogger(__name__)
_PARAMS = Path("params.yaml")
_RUN_FILE = "mlflow_run.json"
_POINTS_FILE = "mlflow_points.jsonl"


@dataclass(frozen=True)
class TrackedStep:
    """What a step's run needs to know before it begins. Paths are relative to the checkout."""

    name: str
    key: str
    """Hash of the content of everything that the step depends on: equal keys are one run."""
    settings: Mapping[str, Any]
    """Every setting that the step uses, nested."""
    data: Path
    """The folder that it reads."""
    data_md5: str
    """Its `folder_md5`."""
    weights: Path
    """The file that it makes or measures."""


class StepRun:
    """The running step as its own code sees it."""

    def __init__(self, client: "MlflowClient", run_id: str, work: Path) -> None:
        self.run_id, self.work = run_id, work
        self._client = client
        self._curves = Curves(client, run_id, work / _POINTS_FILE)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one training step, in the order of the steps; sent in batches."""
        self._curves.add(step, metrics)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Adds parameters to those of the configuration; those that the run has stay as they are."""
        log_parameters(self._client, self.run_id, parameters)

    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Nested figures as metrics; null is left out."""
        self._curves.add(0, flat_figures(figures))

    def log_file(self, path: Path) -> None:
        """Keeps a file beside the run."""
        self._client.log_artifact(self.run_id, str(path))

    def log_folder(self, path: Path, place: str = "") -> None:
        """Keeps a folder's content beside the run, under `place`, by default the folder's name."""
        self._client.log_artifacts(self.run_id, str(path), place or path.name)

    def tag(self, name: str, value: str) -> None:
        """Sets a tag."""
        self._client.set_tag(self.run_id, name, value)

    def finish(self, step: str, weights_sha256: str) -> RunRecord:
        """Sends what waits, marks the run as finished and says what leads to it."""
        self._curves.send()
        self.tag("model_sha256", weights_sha256)
        self._client.set_terminated(self.run_id, "FINISHED")
        run = self._client.get_run(self.run_id)
        parent = run.data.tags.get(PARENT_TAG, "")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return RunRecord(step, self.run_id, run.info.experiment_id, parent, weights_sha256, now)

    def end(self, status: str) -> None:
        """Marks the run as FAILED or KILLED; never raises, because the error that led here is the one to show."""
        try:
            with impatient():
                self._curves.send()
                self._client.set_terminated(self.run_id, status)
        except Exception as error:
            log.warning("run %s could not be marked as %s: %s", self.run_id, status, error)


@contextmanager
def step_run(step: TrackedStep) -> Iterator[StepRun]:
    """Runs a step as a child of `$OMNIHUMAN_PARENT_RUN`, where it is set, and leaves runs/<step>.json.

    A step of the same key that was killed or failed goes on in its own run. `StepRun.work` is the folder that outlives
    a killed step; it goes once the run is finished, so that nothing is trained again because the server was away.

    Raises:
        UserError: the server does not answer, or the parent is not there; raised before the block begins.
    """
    experiment = prepare()
    with held_work_folder(step.key) as work, server_errors(), _interrupted_by_terminate():
        client = open_client()
        run = StepRun(client, _begin(client, experiment, step, work), work)
        try:
            yield run
            record = run.finish(step.name, file_sha256(step.weights))
        except KeyboardInterrupt:
            run.end("KILLED")
            raise
        except BaseException:
            run.end("FAILED")
            raise
        record.save(record_path(step.name))
        shutil.rmtree(work)


def start_parent(name: str, params: Mapping[str, Any], tags: Mapping[str, str], config: Path | None = None) -> str:
    """Begins the run of a pipeline or an arm and returns its id, for `$OMNIHUMAN_PARENT_RUN` of its steps.

    It is itself a child of the run that the variable names now.

    Args:
        params: nested settings, e.g. {"stage": {"activate": {"audio": 0.5}}} or {"ratio": {"audio": 0.5}}.
        config: params.yaml, kept whole as an artifact.

    Raises:
        UserError: the server does not answer, or the parent's parent is not there.
    """
    experiment = prepare()
    with server_errors():
        client = open_client()
        own = {**git_tags(), **tags, **parent_tags(client)}
        run_id = client.create_run(experiment, tags=own, run_name=name).info.run_id
        log_parameters(client, run_id, params)
        if config:
            client.log_artifact(run_id, str(config))
    return run_id


def finish(run_id: str, status: str = "FINISHED", figures: Mapping[str, Any] | None = None) -> None:
    """Ends a parent as FINISHED, FAILED or KILLED, with nested `figures` as its metrics.

    A child that is still marked as running was killed without a chance to say so.
    """
    experiment = prepare()
    with server_errors():
        client = open_client()
        running = f"tags.`{PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'"
        for child in client.search_runs([experiment], running, max_results=1000):
            client.set_terminated(child.info.run_id, "KILLED")
        curves = Curves(client, run_id)
        curves.add(0, flat_figures(figures or {}))
        curves.send()
        client.set_terminated(run_id, status)


def note_restored(parent: str, record: RunRecord) -> bool:
    """Tags a parent with the run that once made a step which DVC skipped or restored; False where the step ran now."""
    if record.parent_run_id == parent:
        return False
    prepare()
    with server_errors():
        open_client().set_tag(parent, f"restored/{record.step}", record.run_id)
    return True


def _begin(client: "MlflowClient", experiment: str, step: TrackedStep, work: Path) -> str:
    """Creates the run, or goes on with the one that the work folder names, and says what it is made from."""
    from mlflow.entities import RunTag

    tags = {"step": step.name, "content_key": step.key, **git_tags(), **parent_tags(client)}
    run_id = _unfinished(client, work / _RUN_FILE)
    if run_id:  # it now belongs to the parent that sees it through
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        client.update_run(run_id, "RUNNING")
    else:
        run_id = client.create_run(experiment, tags=tags, run_name=step.name).info.run_id
        with publish(work / _RUN_FILE) as temporary:
            temporary.write_text(json.dumps({"run_id": run_id}))
    log_parameters(client, run_id, step.settings)
    log_data(client, run_id, step.data, step.data_md5)
    client.log_artifact(run_id, str(_PARAMS))
    return run_id


def _unfinished(client: "MlflowClient", file: Path) -> str:
    """The run that a killed process left; empty where there is none, or it is gone from this store."""
    from mlflow.exceptions import MlflowException

    if not file.is_file():
        return ""
    try:
        info = client.get_run(json.loads(file.read_text())["run_id"]).info
    except MlflowException:
        return ""
    return info.run_id if info.lifecycle_stage == "active" else ""


@contextmanager
def _interrupted_by_terminate() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C, so that the run is marked; the supervisor sends it before it kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
