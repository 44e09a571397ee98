"""Real processes: whatever ends the command or its caller, nothing that it started is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from omnihuman.pipeline.step_lock import hold, open_lock, try_lock
from omnihuman.pipeline.supervisor import GRACE_SECONDS, end_supervised, run_supervised

MARK = "OMNIHUMAN_TEST_MARK"
TREE = """
sleep 300 &
setsid sleep 300 &
sh -c "setsid sleep 300 &"
sh -c 'trap "" TERM INT HUP; sleep 300; sleep 300' &
touch ready
sleep 300
"""
"""A child, one with a session of its own, an orphan, a shell and its child that ignore signals, the last; the shell."""
TAME = "sleep 300 & setsid sleep 300 & touch ready; sleep 300"
CALLER = "import sys; from pathlib import Path; from omnihuman.pipeline.supervisor import run_supervised\n"
CALLER += "sys.exit(run_supervised(['sh', '-c', sys.argv[1]], Path.cwd()))"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything started in this test carries it in its environment."""
    monkeypatch.setenv(MARK, str(tmp_path))
    return str(tmp_path)


def left(mark: str) -> list[psutil.Process]:
    """Processes of this test that live, without pytest itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def start(folder: Path, tree: str) -> subprocess.Popen[bytes]:
    """A caller that supervises a tree of processes, once all of them run."""
    caller = subprocess.Popen([sys.executable, "-c", CALLER, tree], cwd=folder)
    wait_for((folder / "ready").exists)
    return caller


def supervisor_of(caller: subprocess.Popen[bytes]) -> psutil.Process:
    (supervisor,) = psutil.Process(caller.pid).children()
    return supervisor


def test_the_exit_code_and_the_output_come_through(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        codes = [
            run_supervised(command, tmp_path, output=output)
            for command in (["sh", "-c", "echo said; exit 7"], ["sh", "-c", "kill -9 $$"], ["/no/such/program"])
        ]
    assert codes == [7, 128 + 9, 127]
    said = (tmp_path / "output").read_text()
    assert said.startswith("said\n") and "error: /no/such/program cannot be run" in said


def test_the_command_gets_the_environment_and_the_folder(tmp_path: Path) -> None:
    code = run_supervised(["sh", "-c", 'test "$ONE" = two && touch here'], tmp_path, os.environ | {"ONE": "two"})
    assert code == 0 and (tmp_path / "here").exists()


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path, mark: str) -> None:
    assert run_supervised(["sh", "-c", "setsid sleep 300 & exit 3"], tmp_path) == 3
    assert left(mark) == []


def ends(way: str, caller: subprocess.Popen[bytes]) -> int:
    if way == "caller killed":
        caller.kill()
    elif way == "caller interrupted":
        caller.send_signal(signal.SIGINT)
    else:
        supervisor_of(caller).send_signal(signal.SIGTERM if way == "supervisor asked" else signal.SIGINT)
    return caller.wait()


WAYS = {"caller killed": -9, "caller interrupted": -2, "supervisor asked": 143, "supervisor interrupted": 130}


@pytest.mark.parametrize("way", WAYS)
def test_a_tree_ends_with_its_caller(tmp_path: Path, mark: str, way: str) -> None:
    caller = start(tmp_path, TAME)
    wait_for(lambda: len(left(mark)) == 6)  # the caller, the supervisor, the shell and three that sleep
    assert ends(way, caller) == WAYS[way]
    wait_for(lambda: not left(mark), GRACE_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_tree_that_ignores_signals_and_leaves_its_session_ends_too(tmp_path: Path, mark: str, way: str) -> None:
    caller = start(tmp_path, TREE)
    wait_for(lambda: len(left(mark)) == 9)
    assert ends(way, caller) == WAYS[way]
    wait_for(lambda: not left(mark), GRACE_SECONDS + 10)


def test_another_thread_ends_what_is_supervised(tmp_path: Path, mark: str) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_supervised(["sh", "-c", TAME], tmp_path)))
    thread.start()
    wait_for((tmp_path / "ready").exists)
    end_supervised()
    thread.join(30)
    assert codes == [143] and left(mark) == []


@pytest.mark.slow
def test_a_lock_outlasts_its_killed_holder_until_the_last_descendant_has_ended(tmp_path: Path, mark: str) -> None:
    program = (
        "import os, subprocess, time; from pathlib import Path; from omnihuman.pipeline.step_lock import hold\n"
        "with hold(Path('lock'), 'it'):\n"
        "    subprocess.Popen(['sh', '-c', 'trap \"\" TERM; touch ready; sleep 300; sleep 300'])\n"
        "    while not Path('ready').exists(): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), 9)"
    )
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_supervised([sys.executable, "-c", program], tmp_path)))
    thread.start()
    wait_for((tmp_path / "ready").exists)
    time.sleep(1)  # the holder is dead, its child has a grace of five seconds
    assert left(mark)
    with open_lock(tmp_path / "lock") as descriptor:
        assert not try_lock(descriptor)
        wait_for(lambda: try_lock(descriptor))
        assert not [process for process in left(mark) if process.name() in ("sh", "sleep")]
    thread.join(30)
    assert codes == [128 + 9]


def test_the_later_of_two_says_for_whom_it_waits(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = "from pathlib import Path; from omnihuman.pipeline.step_lock import hold\n"
    program += "with hold(Path('lock'), 'train'): Path('got').touch()"
    with hold(tmp_path / "lock", "train"):
        waiting = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
        wait_for(lambda: f"train: waiting for process {os.getpid()} in" in capfd.readouterr().err)
        assert not (tmp_path / "got").exists()
    assert waiting.wait(30) == 0 and (tmp_path / "got").exists()
