"""A long render needs no more memory than a short one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.small_project import ROOT
from tests.tiny import DESCRIPTION, random_model

from omnihuman.model.checkpoint import save_model

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
    (folder / "model").mkdir()
    save_model(folder / "model", random_model(), DESCRIPTION)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "picture.png")
    wavfile.write(folder / "sound.wav", 16000, random.normal(0, 3000, round(seconds * 16000)).astype(np.int16))
    variables = {"OMNIHUMAN_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-c", PROGRAM, str(folder), chaining]
    environment = os.environ | variables | {"PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("chaining", ["decoded_frames", "latent_stream"])
def test_memory_does_not_grow_with_the_length(chaining: str, tmp_path: Path):
    """The sound itself may: 64 kB a second for the model, and as much again for the file."""
    short, long = (peak_megabytes(tmp_path / str(seconds), seconds, chaining) for seconds in (4, 60))
    print(f"{chaining}: {short:.0f} MB for 4 s, {long:.0f} MB for 60 s")
    assert long - short < 40
