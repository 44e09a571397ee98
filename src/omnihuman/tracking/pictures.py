"""Pictures and videos beside the runs in MLflow: which may show somebody, and their removal."""

from collections.abc import Iterator, Set
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from omnihuman.tracking.entries import open_client
from omnihuman.tracking.server import prepare, server_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".webm", ".mov", ".wav", ".html")


def pictures_of(data_md5s: Set[str]) -> list[tuple[str, str]]:
    """Run and path of every picture or video of the runs, deleted ones too, that read data with one of these digests.

    Raises:
        UserError: the server does not answer.
    """
    experiment = prepare()
    with server_errors():
        client = open_client()
        return [
            (run.info.run_id, path)
            for run in _runs(client, experiment)
            if run.inputs and any(entry.dataset.digest in data_md5s for entry in run.inputs.dataset_inputs)
            for path in _files(client, run.info.run_id, None)
            if PurePosixPath(path).suffix.lower() in SUFFIXES
        ]


def remove_artifact(run_id: str, path: str) -> None:
    """Removes one file beside a run; nothing where it is gone already.

    Raises:
        UserError: the server does not answer.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    prepare()
    with server_errors():
        client = open_client()
        place = client.get_run(run_id).info.artifact_uri
        assert place, "MLflow gives every run a place"
        get_artifact_repository(place).delete_artifacts(path)


def _runs(client: "MlflowClient", experiment: str) -> Iterator["Run"]:
    from mlflow.entities import ViewType

    token: str | None = None
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ALL, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _files(client: "MlflowClient", run_id: str, folder: str | None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _files(client, run_id, entry.path)
        else:
            yield entry.path
