"""The work of `media.worker` on a Ray cluster: one task per chunk of items, and in each a worker that can be killed."""

import math
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from tqdm import tqdm

from omnihuman.errors import UserError
from omnihuman.media.worker import Item, Limits, Outcome, T, num_workers, run_guarded

TASKS_PER_PROCESSOR = 2
"""Chunks that are handed to the cluster or wait here, unread; bounds the memory of the caller."""

ANSWER_SECONDS = 5.0


def run_on_ray(
    function: Callable[[Item], T], items: Sequence[Item], limits: Limits, description: str
) -> Iterator[Outcome[T]]:
    """The outcomes of `run_guarded`, in the same order, from the cluster at `$RAY_ADDRESS`.

    Without an address Ray is started on this machine, with `num_workers` processors. A task whose node dies is run
    again by Ray. Files that items name have to lie at the same place on every node.

    Raises:
        UserError: ray is not installed, or there is no cluster at the address.
    """
    if not items:
        return
    ray = _connected()
    processors = max(1, int(ray.cluster_resources().get("GPU" if limits.on_gpu else "CPU", 1)))
    # A chunk has a worker of its own, which takes seconds to start, so chunks are as long as a worker may live.
    size = min(limits.items_per_worker, math.ceil(len(items) / processors))
    starts = iter(range(0, len(items), size))
    task = ray.remote(num_cpus=1, num_gpus=int(limits.on_gpu), max_retries=3)(_run_chunk)
    running: deque[tuple[int, Any]] = deque()
    try:
        with tqdm(total=len(items), desc=description, disable=None, file=sys.stderr) as progress:
            while True:
                while len(running) < TASKS_PER_PROCESSOR * processors and (start := next(starts, None)) is not None:
                    running.append((start, task.remote(function, items[start : start + size], limits)))
                if not running:
                    return
                start, reference = running[0]
                outcomes = ray.get(reference)
                running.popleft()
                for outcome in outcomes:
                    progress.update()
                    yield replace(outcome, index=start + outcome.index)
    finally:
        for _, reference in running:
            ray.cancel(reference, force=True)


def _run_chunk(function: Callable[[Item], T], items: Sequence[Item], limits: Limits) -> list[Outcome[T]]:
    """Runs in a process of Ray's, which counts as one processor; a decoder that hangs would hold it for ever."""
    return list(run_guarded(function, items, replace(limits, workers=1), ""))


def _connected() -> Any:
    """The package ray, with a cluster that stays until this process ends."""
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise UserError(
            "compute.pool is ray, but the package ray is not installed: run `.venv/bin/pip install '.[ray]'`, or set"
            " compute.pool=local"
        ) from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "")
        _check_answers(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {} if address else {"num_cpus": num_workers(), "include_dashboard": False}
        try:
            # Without an address never one that happens to run here, whose processors are not ours to count.
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray cannot be reached at RAY_ADDRESS={address}: {error}") from error
    return ray


def _check_answers(address: str) -> None:
    """Raises `UserError` where nothing listens at `host:port`; Ray itself tries that for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS is {address}: nothing answers there; start a cluster or unset it") from error
