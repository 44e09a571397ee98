"""A change of form leaves the losses as they are; what a change of meaning makes of them is committed with it."""

import json
from pathlib import Path

import pytest
import torch
from tests.golden import FILE, golden_losses

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4


def test_losses_of_the_demo_are_the_committed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        losses = golden_losses(tmp_path)
    finally:
        torch.set_num_threads(threads)
    expected = json.loads(FILE.read_text())
    assert losses.keys() == expected.keys() and losses["3_pose"].keys() == expected["3_pose"].keys()
    for stage, metrics in expected.items():
        for name, values in metrics.items():
            assert losses[stage][name] == pytest.approx(values, rel=TOLERANCE), (
                f"{name} of {stage} has changed: if that is meant, run `make golden` and say why in the commit"
            )
