"""A render is killed at random moments and called again: what it leaves is what an uninterrupted one leaves."""

import random
import shutil
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.paced_render import ALLOWED, write_inputs
from tests.small_project import checkout_environment, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.long]

NUM_SEGMENTS = 24
KILLS = [3, pytest.param(10, marks=pytest.mark.soak)]


def start(folder: Path, chaining: str) -> psutil.Popen:
    command = [sys.executable, "-m", "tests.paced_render", str(folder), chaining]
    return psutil.Popen(command, env=checkout_environment(folder / "home"))


def kept(folder: Path) -> dict[str, bytes]:
    """Finished segments in work, and their bytes."""
    return {path.name: path.read_bytes() for path in (folder / "home").rglob("segment-*.safetensors")}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, (9 + 4 * (NUM_SEGMENTS - 1)) / 25)
    return folder


@pytest.mark.parametrize("chaining", ["decoded_frames", "latent_stream"])
@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_render_goes_on_where_it_was(kills: int, chaining: str, inputs: Path, tmp_path: Path) -> None:
    whole, folder = (Path(shutil.copytree(inputs, tmp_path / name)) for name in ("whole", "killed"))
    (whole / ALLOWED).write_text("1000")
    assert start(whole, chaining).wait(300) == 0
    moments, before = random.Random(kills), {}
    for number in range(kills):
        (folder / ALLOWED).write_text(str(round((number + 1) * NUM_SEGMENTS / (kills + 1))))
        step = start(folder, chaining)
        allowed = int((folder / ALLOWED).read_text())
        assert wait_until(lambda: len(kept(folder)) >= allowed - 1 or step.poll() is not None, 300)  # noqa: B023
        time.sleep(moments.uniform(0, 0.3))
        assert step.poll() is None, "the render ended before it could be killed"
        step.kill()
        step.wait()
        now = kept(folder)
        assert len(now) >= allowed - 1 and before.items() <= now.items(), "no finished segment is made again"
        assert not (folder / "video.mp4").exists()
        before = now
    (folder / ALLOWED).write_text("1000")
    assert start(folder, chaining).wait(300) == 0
    latents = {path.name: path.read_bytes() for path in (folder / "latents").iterdir()}
    assert latents == {path.name: path.read_bytes() for path in (whole / "latents").iterdir()}
    assert len(latents) == NUM_SEGMENTS and before.items() <= latents.items()
    assert (folder / "video.mp4").read_bytes() == (whole / "video.mp4").read_bytes()
    assert not list(folder.glob("*.partial*")), "what a killed render had begun to write is gone"
