"""Settings that all tests share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
from tests.s3_server import serve
from tests.s3_server import settings as settings_of_s3
from tests.small_project import prepare_data

settings.register_profile("project", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("project")

GIT_SETTINGS = {
    "user.name": "test",
    "user.email": "test@localhost",
    "commit.gpgsign": "false",
    "core.hooksPath": os.devnull,
    "diff.noprefix": "false",
}
"""What a user's own settings would change in the tests' repositories."""


def pytest_report_header() -> str:
    """Says with which seeds a failure can be repeated."""
    return "seeds: written in each test; hypothesis derandomized"


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own store, caches or runs, nor follows the user's settings of git."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIHUMAN_HOME", str(tmp_path_factory.mktemp("omnihuman home")))
        patch.setenv("OMNIHUMAN_PARENT_RUN", "")
        patch.setenv("GIT_CONFIG_COUNT", str(len(GIT_SETTINGS)))
        for number, (key, value) in enumerate(GIT_SETTINGS.items()):
            patch.setenv(f"GIT_CONFIG_KEY_{number}", key)
            patch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
        yield


@pytest.fixture(autouse=True)
def no_store_of_the_test_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow writes the address it was last pointed at into the environment, where the next test would take it up."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")


@pytest.fixture(scope="session")
def with_tiny_data(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[Path], Path]:
    """Gives a clone the results of the data steps of the profile `tiny`, which one process of a session computes."""
    base = tmp_path_factory.getbasetemp()
    cache = (base if worker_id == "master" else base.parent) / "tiny data"
    with FileLock(cache.with_suffix(".lock")):
        if not cache.is_dir():
            prepare_data(tmp_path_factory.mktemp("preparing")).rename(cache)
    return lambda clone: shutil.copytree(cache, clone / ".dvc/cache")


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running S3 server with the bucket `s3_server.BUCKET`."""
    with serve(tmp_path_factory.getbasetemp() / "s3.log") as address:
        yield address


@pytest.fixture
def s3_server(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which S3 is that server."""
    for name, value in settings_of_s3(s3_address).items():
        monkeypatch.setenv(name, value)
