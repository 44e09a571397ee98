"""Which MLflow store this process tracks in, made ready before anything long begins."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock

from filelock import FileLock

from omnihuman.errors import UserError
from omnihuman.storage.work import omnihuman_home

EXPERIMENT = "omnihuman"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
_BUSY_SECONDS = 30.0

# Read by MLflow when it is imported or at each call; what the user has set stays. Its own five or seven retries with
# growing pauses would hold training up for minutes.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}
_one_at_a_time = RLock()
_ONE_TRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)


def tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, by default SQLite under `$OMNIHUMAN_HOME`.

    Raises:
        UserError: the variable names neither a server nor an SQLite file by its absolute path.
    """
    uri = os.environ.get(URI_VARIABLE, "")
    if not uri:
        return f"{_SQLITE}{(omnihuman_home() / 'mlflow' / 'mlflow.db').absolute()}"
    if uri.startswith(("http://", "https://")):
        return uri
    if not uri.startswith(_SQLITE):
        raise UserError(
            f"{URI_VARIABLE} is {uri!r}: runs are kept in SQLite or by a server only; name http://HOST:PORT or"
            f" {_SQLITE}/ABSOLUTE/PATH, or unset it"
        )
    if not Path(uri.removeprefix(_SQLITE)).is_absolute():  # each worktree would otherwise have a store of its own
        raise UserError(f"{URI_VARIABLE} is {uri!r}: the path must be absolute, with four slashes in all")
    return uri


def prepare() -> str:
    """Makes the store ready, points MLflow at it, in child processes too, and returns the experiment's id.

    Processes that find no store yet take turns, because MLflow's migrations crash when several begin them at once. A
    leftover folder `mlruns` has no say, since the address is always set.

    Raises:
        UserError: the server does not answer within seconds, or the file cannot be used.
    """
    uri = tracking_uri()
    if not uri.startswith(_SQLITE):
        return _experiment(uri, artifacts=None)
    home = omnihuman_home().absolute() / "mlflow"
    _check_file(Path(uri.removeprefix(_SQLITE)))
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "initialise.lock"):
        return _experiment(uri, artifacts=home / "artifacts")


def _experiment(uri: str, artifacts: Path | None) -> str:
    """The experiment's id; a new one keeps its artifacts in `artifacts`, or where the server wants them."""
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    try:
        with impatient():
            client = mlflow.MlflowClient(uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                try:
                    return client.create_experiment(EXPERIMENT, artifacts.as_uri() if artifacts else None)
                except MlflowException as error:
                    found = client.get_experiment_by_name(EXPERIMENT)  # another machine may have been faster
                    if found is None:
                        raise error
    except MlflowException as error:
        raise UserError(_unusable(uri, error)) from error
    if found.lifecycle_stage != "active":
        raise UserError(
            f"the experiment {EXPERIMENT} of {uri} was deleted: bring it back with"
            f" `mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return found.experiment_id


def _unusable(uri: str, error: Exception) -> str:
    if uri.startswith(_SQLITE):
        return f"{uri} cannot be used to track runs: {_first_line(error)}"
    return (
        f"{URI_VARIABLE} is {uri}, but no MLflow server answers there ({_first_line(error)}); start it (`omnihuman up`"
        " starts a local one), or unset the variable to track in a file"
    )


def _check_file(path: Path) -> None:
    """Opens the file for writing once; MLflow itself would try ten times with growing pauses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"runs cannot be tracked in {path}: {error}; name another place by {URI_VARIABLE} or OMNIHUMAN_HOME"
        ) from error


@contextmanager
def impatient() -> Iterator[None]:
    """Inside the block each call to a server is tried once, with ten seconds for the answer.

    MLflow reads the environment, which threads share: they take turns, or one would take another's setting for its own.
    """
    with _one_at_a_time:
        before = {name: os.environ.get(name) for name in _ONE_TRY}
        os.environ.update(_ONE_TRY)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def server_errors() -> Iterator[None]:
    """Makes an absent server the user's error; what MLflow refuses stays a defect of ours.

    Raises:
        UserError: the store did not answer, or could not be written.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
            raise
        raise UserError(
            f"{tracking_uri()} no longer keeps runs ({_first_line(error)}): see to it and run this again; it goes on"
            " where it was"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
