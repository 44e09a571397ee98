"""A long render needs no more memory than a short one."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.paced_render import write_inputs
from tests.small_project import checkout_environment

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROGRAM = """
import resource, sys
from pathlib import Path
from tests import paced_render
folder, allowed = Path(sys.argv[1]), Path(sys.argv[1]) / paced_render.ALLOWED
allowed.write_text("100000")
paced_render.main(folder, sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_megabytes(folder: Path, seconds: float, chaining: str) -> float:
    folder.mkdir()
    write_inputs(folder, seconds)
    command = [sys.executable, "-c", PROGRAM, str(folder), chaining]
    variables = checkout_environment(folder / "home")
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("chaining", ["decoded_frames", "latent_stream"])
def test_memory_does_not_grow_with_the_length(chaining: str, tmp_path: Path):
    """The sound itself may: 64 kB a second for the model, and as much again for the file."""
    short, long = (peak_megabytes(tmp_path / str(seconds), seconds, chaining) for seconds in (4, 60))
    print(f"{chaining}: {short:.0f} MB for 4 s, {long:.0f} MB for 60 s")
    assert long - short < 40
