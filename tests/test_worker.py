"""Killable workers: order, deadlines, crashes, memory, and nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from omnihuman.errors import UserError
from omnihuman.media.worker import Limits, num_workers, run_guarded

LIMITS = Limits(deadline_seconds=20.0, memory_megabytes=300)


@pytest.fixture(autouse=True)
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_WORKERS", "2")


def late_first(item: int) -> int:
    time.sleep(0.3 if item == 0 else 0.0)
    return item * item


def ignores_sigterm(item: int) -> int:
    if item == 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass
    return item


def crashes(item: int) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 3:
        os._exit(3)
    return item


def hungry(item: int) -> int:
    return len(bytearray(item * 2**20))


def raises(item: int) -> int:
    if item == 0:
        raise UserError("two\nlines")
    if item == 1:
        raise KeyError("key")
    return item


def pid(item: int) -> int:
    return os.getpid()


def run(function: Callable[[int], Any], items: list[int], limits: Limits = LIMITS) -> list[tuple[str, Any, str]]:
    outcomes = list(run_guarded(function, items, limits, "test"))
    assert [outcome.index for outcome in outcomes] == list(range(len(items)))
    assert not multiprocessing.active_children()
    return [(outcome.status, outcome.value, outcome.error) for outcome in outcomes]


def test_outcomes_keep_the_order_of_the_items() -> None:
    assert run(late_first, list(range(50))) == [("ok", item * item, "") for item in range(50)]


def test_no_items_start_no_worker() -> None:
    assert run(late_first, []) == []


def test_a_spinning_item_is_killed_and_the_others_go_on() -> None:
    outcomes = run(ignores_sigterm, [0, 1, 2, 3], Limits(deadline_seconds=0.5, memory_megabytes=300))
    assert outcomes[1] == ("timeout", None, "took longer than 0.5 s")
    assert [outcome[0] for outcome in outcomes] == ["ok", "timeout", "ok", "ok"]


def test_a_crash_names_the_signal() -> None:
    outcomes = run(crashes, [0, 1, 2, 3, 4])
    assert [outcome[0] for outcome in outcomes] == ["ok", "error", "ok", "error", "ok"]
    assert "SIGSEGV" in outcomes[1][2]
    assert "exit code 3" in outcomes[3][2]


def test_memory_is_capped_per_item() -> None:
    outcomes = run(hungry, [10, 1000, 20])
    assert [outcome[0] for outcome in outcomes] == ["ok", "error", "ok"]
    assert outcomes[1][2] == "needed more than 300 MB of memory"


def test_errors_become_one_sentence() -> None:
    assert run(raises, [0, 1, 2]) == [("error", None, "two lines"), ("error", None, "KeyError: 'key'"), ("ok", 2, "")]


def test_workers_are_replaced() -> None:
    pids = [outcome[1] for outcome in run(pid, [0] * 8, Limits(20.0, 300, items_per_worker=2))]
    assert max(pids.count(one) for one in pids) <= 2


def test_closing_the_iterator_kills_the_workers() -> None:
    outcomes = run_guarded(ignores_sigterm, [0, 1], LIMITS, "test")
    assert next(outcomes).value == 0
    outcomes.close()
    assert not multiprocessing.active_children()


def test_a_function_that_cannot_be_imported_is_reported() -> None:
    namespace: dict[str, Any] = {"__name__": "absent_module"}
    exec("def function(item): return item", namespace)
    module = type(sys)("absent_module")
    module.__dict__["function"] = namespace["function"]
    sys.modules["absent_module"] = module
    try:
        with pytest.raises(RuntimeError, match="absent_module"):
            list(run_guarded(namespace["function"], [1], LIMITS, "test"))
    finally:
        del sys.modules["absent_module"]


def test_no_worker_outlives_a_killed_parent() -> None:
    program = (
        "import test_worker, omnihuman.media.worker as w\n"
        "if __name__ == '__main__':\n"
        "    outcomes = w.run_guarded(test_worker.ignores_sigterm, [0, 1], test_worker.LIMITS, 'test')\n"
        "    print(next(outcomes).value, flush=True); list(outcomes)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"0\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not alive


def test_number_of_workers_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_workers() == 2
    monkeypatch.setenv("OMNIHUMAN_WORKERS", "many")
    with pytest.raises(UserError, match="OMNIHUMAN_WORKERS"):
        num_workers()
