"""One node of a job: torchrun and its ranks, with the exit code of the first rank that fails as its own.

`python -m omnihuman.training.launch.node EXIT_FILE [torchrun's options] -m MODULE ...`. torchrun's own program ends
with 1 whatever happened, and with a traceback that buries the rank's message.
"""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_BY_REQUEST = (128 + 2, 128 + 15)


def main(exit_file: Path, arguments: list[str]) -> int:
    """Runs the ranks of this node and returns the exit code; the first node that ends by itself also writes it.
    Nothing that the ranks started is left.

    A node that is asked to end writes nothing: the job may be continued elsewhere.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    parsed = run.parse_args(arguments)
    if index := os.environ.get("JOB_COMPLETION_INDEX"):  # of a pod of Kubernetes: the first is where all meet
        parsed.rdzv_conf += f",is_host={int(index == '0')}"
    threads = len(os.sched_getaffinity(0)) // int(parsed.nproc_per_node)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))
    try:
        run.run(parsed)
        code = 0
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        code = code if code >= 0 else 128 - code
    except SignalException as error:
        code = 128 + error.sigval
    finally:
        _end_descendants()
    if code not in _BY_REQUEST:
        _write_first(exit_file, code)
    return code


def _end_descendants() -> None:
    """What ranks left behind comes to us when they end; SLURM would wait for it, because it holds our output open."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def _write_first(exit_file: Path, code: int) -> None:
    try:
        with exit_file.open("x") as file:
            file.write(f"{code}\n")
    except FileExistsError:  # another node was faster: what failed there pulled us down
        pass


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
