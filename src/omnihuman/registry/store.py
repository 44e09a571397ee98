"""The registry in MLflow: the one model that it holds, its aliases, and locks around changes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from omnihuman.errors import UserError
from omnihuman.storage.work import omnihuman_home
from omnihuman.tracking.server import prepare

if TYPE_CHECKING:  # at run time MLflow is imported once `prepare` has been, whose module sets what MLflow reads then
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion
    from mlflow.entities.model_registry import RegisteredModel

MODEL_NAME = "omnihuman"
CANDIDATE = "candidate"
CHAMPION = "champion"
_MAX_DIGITS = 18  # what any database takes for a whole number
_REMEDY = "`omnihuman registry list` shows what there is"


def connect() -> "MlflowClient":
    """A client of the prepared store.

    Raises:
        UserError: a server is named but does not answer.
    """
    from mlflow import MlflowClient

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar a file would bury our own lines
    prepare()
    return MlflowClient()


def registered_model(client: "MlflowClient") -> "RegisteredModel | None":
    """The model with its tags and aliases; None before the first version is registered."""
    found = client.search_registered_models(f"name='{MODEL_NAME}'")
    return found[0] if found else None


def aliases(client: "MlflowClient") -> dict[str, int]:
    """Version by alias; empty before anything is registered."""
    model = registered_model(client)
    return {} if model is None else {alias: int(version) for alias, version in model.aliases.items()}


def find(client: "MlflowClient", reference: str) -> "RegisteredVersion":
    """The version behind an alias or a number.

    Raises:
        UserError: nothing is registered, or there is no such alias or version.
    """
    from mlflow.exceptions import MlflowException

    if registered_model(client) is None:
        raise UserError(f"no version of {MODEL_NAME} is registered yet: run `omnihuman registry register`")
    known = aliases(client)
    if reference == CHAMPION and CHAMPION not in known:
        raise UserError(f"{MODEL_NAME} has no champion yet: `omnihuman registry promote candidate` makes one")
    if reference not in known and not reference.isdecimal():
        raise UserError(f"{MODEL_NAME} has no alias {reference!r}, give a version's number or an alias; {_REMEDY}")
    number = known.get(reference, reference)
    unknown = UserError(f"{MODEL_NAME} has no version {number}; {_REMEDY}")
    if len(str(number)) > _MAX_DIGITS:
        raise unknown
    try:
        return client.get_model_version(MODEL_NAME, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise unknown from error


@contextmanager
def exclusive(purpose: str, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Holds the lock of `purpose` on this machine; a killed holder releases it.

    Raises:
        UserError: another process holds it for longer than `timeout_seconds`.
    """
    place = omnihuman_home() / "locks" / f"registry-{purpose}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place, timeout=timeout_seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"another process holds {place} ({purpose}): wait for it, then try again") from error
    try:
        yield
    finally:
        lock.release()
