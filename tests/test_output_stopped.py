"""`omnihuman render` as a process: interrupted, and on a full disk."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.batches import ROOT
from tests.tiny import DESCRIPTION, random_model

from omnihuman.model.checkpoint import save_model

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with params.yaml, a model, and a minute of sound."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", random_model(), DESCRIPTION)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 32, 3), dtype=np.uint8)).save(tmp_path / "i.png")
    wavfile.write(tmp_path / "s.wav", 16000, (9000 * np.sin(np.arange(60 * 16000) / 12)).astype(np.int16))
    return tmp_path


def started(project: Path, largest_file: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "omnihuman.cli", "render", "--model", "model", "--image", "i.png", "--audio", "s.wav"),
        *("-o", "videos/a.mp4"),
    ]
    environment = os.environ | {"OMNIHUMAN_HOME": str(project / "home")}
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY)),
    )


def test_ctrl_c_in_the_middle_leaves_no_file_and_no_process(project: Path) -> None:
    process = started(project)
    videos, deadline = project / "videos", time.monotonic() + 240
    while not list(videos.glob("..a.*.partial.mp4")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=60)
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.endswith("interrupted\n") and "Traceback" not in said
    assert list(videos.iterdir()) == []
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, [child.cmdline() for child in alive]


def test_a_disk_that_fills_is_exit_code_2(project: Path) -> None:
    process = started(project, largest_file=200_000)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: videos/a.mp4: File too large; ")
    assert list((project / "videos").iterdir()) == []
