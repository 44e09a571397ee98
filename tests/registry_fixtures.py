"""A checkout and a store of three versions, on real git, DVC and MLflow: named in `pytest_plugins`."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.registered import GRAPH, ROOT, finish_run, run
from tests.test_gate import estimate, figures
from tests.tiny import write_encoded

from omnihuman.registry.register import register


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout and a home whose store holds three versions: fair, better, and with a mouth that does not follow."""
    folder = tmp_path_factory.mktemp("filled")
    root = folder / "checkout"
    (root / "made").mkdir(parents=True)
    write_encoded(root / "made/encoded", [(True, True), (True, True)], split="test")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["sampling"]["num_steps"] = 2
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text(yaml.safe_dump(GRAPH))
    (root / "code.py").write_text("first = 1\n")
    (root / ".gitignore").write_text("/made/\n/data/\n/models/\n/reports/\n/runs/\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIHUMAN_HOME", str(folder / "home"))
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder / "site"))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        run(root, "git", "init", "--quiet")
        run(root, sys.executable, "-m", "dvc", "init", "--quiet")
        run(root, "git", "add", ".")
        run(root, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "first")
        for seed, value in enumerate((0.70, 0.80, 0.10)):
            finish_run(root, seed, figures(opening__generated=estimate(value, value - 0.05, value + 0.05)))
            assert register(root).version == seed + 1
    yield folder


@pytest.fixture
def place(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout, with the store's rows; the stored files are shared, and no test changes them."""
    shutil.copytree(filled / "checkout", tmp_path / "checkout", symlinks=True)
    (tmp_path / "home/mlflow").mkdir(parents=True)
    shutil.copyfile(filled / "home/mlflow/mlflow.db", tmp_path / "home/mlflow/mlflow.db")
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"
