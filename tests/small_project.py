"""Projects to run flows in: one whose steps take no time, with the real flows and deployments, and the real one."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[1]
MARK = "OMNIHUMAN_TEST_MARK"
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def make_project(folder: Path) -> Path:
    """`collect` copies the file `input` unless it says `bad`, and sleeps through TERM if it says `sleep`.

    Each stage adds the run in MLflow that it is to be a child of to the file `parents`.
    """
    folder.mkdir(parents=True)
    environment = os.environ | {"DVC_SITE_CACHE_DIR": str(folder.parent / "site")}
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, env=environment, check=True
    )
    collect = (
        "grep -q bad input && { echo 'error: input is bad' >&2; exit 2; };"
        f' grep -q sleep input && {sys.executable} -c "{SLEEP}"; cp input clips'
    )
    stages = {
        "collect": {"cmd": collect, "deps": ["input"], "outs": ["clips"]},
        "encode": {"cmd": "cp clips encoded", "deps": ["clips"], "outs": ["encoded"]},
        "train": {
            "foreach": ["1_text_image", "2_audio"],
            "do": {
                "cmd": "cp encoded ${item}; echo $OMNIHUMAN_PARENT_RUN >> parents",
                "deps": ["encoded"],
                "outs": ["${item}"],
            },
        },
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (folder / "input").write_text("good")
    shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", folder)
    return folder


def clone_project(folder: Path) -> Path:
    """A clone of this project with its uncommitted files."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    command = ["git", "ls-files", "--modified", "--others", "--exclude-standard", "-z"]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, changed.split("\0")):
        (folder / name).unlink(missing_ok=True)
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def prepare_data(folder: Path) -> Path:
    """The DVC cache of a clone in which the data steps of the profile `tiny` have run."""
    clone = clone_project(folder / "omnihuman")
    for command in (
        ["omnihuman", "config", "compose", "--profile", "tiny"],
        [sys.executable, "-m", "dvc", "repro", "encode"],
    ):
        subprocess.run(command, cwd=clone, env=environment(clone, "prepare"), check=True)
    return clone / ".dvc/cache"


def environment(project: Path, mark: str) -> dict[str, str]:
    """Of commands in the project: a home of its own, and a mark by which all that they start is found again."""
    home = project.parent / "home"
    home.mkdir(exist_ok=True)
    foreign = ("PREFECT_", "MLFLOW_", "OMNIHUMAN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "HOME": str(home),
        "OMNIHUMAN_HOME": str(home / ".omnihuman"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": str((project if (project / "src").is_dir() else ROOT) / "src"),
        "DO_NOT_TRACK": "1",
        MARK: mark,
    }


def marked(mark: str) -> list[list[str]]:
    """Command lines of the living processes that carry the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def checkout_environment(home: Path) -> dict[str, str]:
    """Of a process that imports this checkout and its tests, with a home of its own and one thread."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "OMNIHUMAN_HOME": str(home), "OMP_NUM_THREADS": "1"}


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
