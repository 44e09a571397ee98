"""The whole graph with every stage on two ranks of DeepSpeed: by DVC, into the registry, to a rendered video."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.small_project import clone_project, environment

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_all_stages_train_on_two_ranks_and_their_model_is_released_and_renders(
    tmp_path: Path, with_tiny_data: Callable[[Path], Path]
) -> None:
    clone = clone_project(tmp_path / "omnihuman")
    with_tiny_data(clone)

    def run(*command: str) -> str:
        result = subprocess.run(
            command, cwd=clone, env=environment(clone, "ranks"), capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]
        return result.stdout

    run("omnihuman", "demo", "--profile", "tiny", "groups.compute=cpu_zero2")
    lines = (tmp_path / "home/.omnihuman/throughput.jsonl").read_text().splitlines()
    works = [json.loads(line)["work"] for line in lines]
    assert [(work["stage"], work["strategy"], work["processes"]) for work in works] == [
        (stage, "zero2", 2) for stage in ("1_text_image", "2_audio", "3_pose")
    ]
    told = [json.loads((clone / f"models/{stage}/model.json").read_text()) for stage in ("2_audio", "3_pose")]
    assert [model["num_steps"] for model in told] == [4, 4] and not any(model["note"] for model in told)
    assert "candidate" in run("omnihuman", "registry", "list")
    assert (clone / "renders/demo.mp4").stat().st_size > 10_000
