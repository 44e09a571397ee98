"""The benchmarks of the model: they run, and measure what the configuration says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from omnihuman.config.compose import compose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_largest_size_is_that_of_the_open_base(monkeypatch: pytest.MonkeyPatch):
    """Written out in the benchmark, which must run where nothing composes configurations."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from bases import CONFIGS

    assert CONFIGS["2b"] == replace(compose("demo", ["groups.model=motif_2b"]).model, image_width=0)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("piece", ["base-eager", "training-eager", "zero2-none", "zero2-full"])
def test_pieces_of_the_gpu_benchmark_run_and_are_skipped_once_done(piece: str, tmp_path: Path):
    command = [sys.executable, str(BENCHMARKS / "model_gpu.py"), "--device", "cpu", "--size", "tiny", "--piece", piece]
    first = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    (written,) = tmp_path.rglob("*.json")
    assert json.loads(written.read_text())
    moment = written.stat().st_mtime_ns
    again = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert again.returncode == 0 and written.stat().st_mtime_ns == moment
