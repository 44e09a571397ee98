"""Which GPUs each of several runs side by side sees."""

import shutil
import subprocess
from collections.abc import Mapping

VISIBLE = "CUDA_VISIBLE_DEVICES"


def shares_of_gpus(num_runs: int, env: Mapping[str, str]) -> list[dict[str, str]]:
    """For each of `num_runs` runs side by side the variables that give it its GPUs; empty where there are none.

    With more GPUs than runs each gets several, with fewer several runs share one.

    Args:
        env: where CUDA_VISIBLE_DEVICES, if it is set, says which GPUs may be used; else all of this machine may.
    """
    gpus = [gpu for gpu in env[VISIBLE].split(",") if gpu.strip()] if VISIBLE in env else _installed()
    if not gpus:
        return [{}] * num_runs
    return [{VISIBLE: ",".join(gpus[run % len(gpus) :: num_runs])} for run in range(num_runs)]


def _installed() -> list[str]:
    """Numbers of the GPUs here, asked of NVIDIA's own program: importing torch for it would take seconds."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False)
    lines = listed.stdout.splitlines() if not listed.returncode else []
    return [str(number) for number, line in enumerate(lines) if line.startswith("GPU ")]
