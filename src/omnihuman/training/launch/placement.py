"""Where the processes of a stage run: from the environment alone, so that it never makes a result stale."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from omnihuman.config.schema.compute import Compute
from omnihuman.errors import UserError

LAUNCHERS = ("local", "slurm", "kubernetes")
VARIABLES = {
    "OMNIHUMAN_LAUNCHER": "local (the default), slurm or kubernetes",
    "OMNIHUMAN_NODES": "machines (default 1)",
    "OMNIHUMAN_PROCESSES": "processes of each machine, one a GPU (default: compute.processes_per_node)",
    "OMNIHUMAN_SAVE_SECONDS": "how long processes that are asked to end may take to save (default 120)",
    "OMNIHUMAN_SLURM_ARGUMENTS": "more options of sbatch, e.g. '--partition=gpu --account=lab --time=2-0'",
    "OMNIHUMAN_KUBERNETES_IMAGE": "container image with this package and its dependencies",
    "OMNIHUMAN_KUBERNETES_CLAIM": "volume claim that holds the checkout and $OMNIHUMAN_HOME",
    "OMNIHUMAN_KUBERNETES_MOUNT": "where this machine has that volume; the pods get it at the same place",
    "OMNIHUMAN_KUBERNETES_NAMESPACE": "namespace (default: default)",
    "OMNIHUMAN_KUBERNETES_SECRET": "Secret of that namespace whose keys become variables of the pods, e.g. AWS_*",
    "OMNIHUMAN_DEVICE": "name of the device, for --plan away from it, as in throughput.jsonl",
    "OMNIHUMAN_GPU_HOUR_PRICE": "price of an hour of one process's device, for --plan",
}
"""Every variable of the launcher and what it says."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Kubernetes:
    """Where a Job runs."""

    image: str
    claim: str
    mount: str
    namespace: str = "default"
    secret: str = ""
    """By name alone: what is secret stands in no file of ours."""


@dataclass(frozen=True)
class Placement:
    """How many processes a stage has and who starts them."""

    launcher: str = "local"
    nodes: int = 1
    processes: int = 1
    """Of each node."""
    save_seconds: int = 120
    slurm_arguments: str = ""
    kubernetes: Kubernetes | None = None

    @property
    def world_size(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.processes


def placement(compute: Compute, environment: Mapping[str, str] = os.environ) -> Placement:
    """What the environment says, and `compute` where it is silent.

    Raises:
        UserError: a variable has a value that cannot be, or goes with no other.
    """
    launcher = environment.get("OMNIHUMAN_LAUNCHER") or "local"
    if launcher not in LAUNCHERS:
        raise UserError(f"OMNIHUMAN_LAUNCHER is {launcher!r}: set one of {', '.join(LAUNCHERS)}")
    found = Placement(
        launcher,
        _count(environment, "OMNIHUMAN_NODES", 1),
        _count(environment, "OMNIHUMAN_PROCESSES", compute.processes_per_node),
        _count(environment, "OMNIHUMAN_SAVE_SECONDS", 120),
        environment.get("OMNIHUMAN_SLURM_ARGUMENTS", ""),
        _kubernetes(environment) if launcher == "kubernetes" else None,
    )
    if compute.strategy == "single" and found.world_size > 1:
        raise UserError(
            f"OMNIHUMAN_NODES times OMNIHUMAN_PROCESSES is {found.world_size}, but compute.strategy is single: compose"
            " with groups.compute=zero2, or unset them"
        )
    if launcher == "local" and found.nodes > 1:
        raise UserError(
            f"OMNIHUMAN_NODES is {found.nodes}, but the local launcher starts processes on this machine alone: set"
            " OMNIHUMAN_LAUNCHER to slurm or kubernetes, or unset OMNIHUMAN_NODES"
        )
    return found


def trains_here(placed: Placement, compute: Compute) -> bool:
    """Whether the calling process trains by itself, with nothing to launch."""
    return placed.launcher == "local" and placed.world_size == 1 and compute.strategy == "single"


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UserError(f"{name} is {text!r}: set a whole number from 1 on")
    return int(text)


def _kubernetes(environment: Mapping[str, str]) -> Kubernetes:
    names = [f"OMNIHUMAN_KUBERNETES_{part}" for part in ("IMAGE", "CLAIM", "MOUNT")]
    missing = [name for name in names if not environment.get(name)]
    if missing:
        told = "; ".join(f"{name}: {VARIABLES[name]}" for name in missing)
        raise UserError(f"OMNIHUMAN_LAUNCHER is kubernetes, but {', '.join(missing)} is not set ({told})")
    image, claim, mount = (environment[name] for name in names)
    namespace = environment.get("OMNIHUMAN_KUBERNETES_NAMESPACE") or "default"
    secret = environment.get("OMNIHUMAN_KUBERNETES_SECRET") or ""
    for name, value in {"CLAIM": claim, "NAMESPACE": namespace, "SECRET": secret}.items():
        if value and not _NAME.fullmatch(value):
            raise UserError(f"OMNIHUMAN_KUBERNETES_{name} is {value!r}: set lower-case letters, digits and -")
    if not mount.startswith("/"):
        raise UserError(f"OMNIHUMAN_KUBERNETES_MOUNT is {mount!r}: set an absolute path")
    return Kubernetes(image, claim, mount, namespace, secret)
