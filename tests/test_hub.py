"""A base by its hub id: from the cache, from a hub, and without one.

Each in a process of its own: the hub's client reads its settings when it is imported.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from diffusers import MotifVideoTransformer3DModel
from tests.local_hub import COMMIT, local_hub

OPEN = """
import sys
from omnihuman.model.published_files import open_published
files = open_published(*sys.argv[1:])
print(files.source, files.variant)
"""
SIZES = {
    "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "num_single_layers": 1,
    "num_decoder_layers": 0, "text_embed_dim": 8, "rope_axes_dim": (4, 6, 6),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    MotifVideoTransformer3DModel(**SIZES).save_pretrained(folder)
    return folder


def opened(home: Path, *arguments: str, **settings: str) -> str:
    environment = os.environ | {"HF_HOME": str(home)} | settings
    command = [sys.executable, "-c", OPEN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip()


@pytest.mark.parametrize("variants", [("",), ("bf16",), ("", "bf16")])
def test_a_repository_is_fetched_from_a_hub(saved: Path, tmp_path: Path, variants: tuple[str, ...]) -> None:
    folder = tmp_path / "repository/transformer"
    folder.mkdir(parents=True)
    shutil.copy(saved / "config.json", folder)
    for variant in variants:
        name = f"diffusion_pytorch_model{f'.{variant}' if variant else ''}.safetensors"
        shutil.copy(saved / "diffusion_pytorch_model.safetensors", folder / name)
    with local_hub("someone/tiny", tmp_path / "repository") as address:
        chosen = opened(tmp_path / "home", "someone/tiny", HF_ENDPOINT=address)
        assert chosen == f"someone/tiny@{COMMIT} {variants[0]}".strip()
        if len(variants) > 1:
            fetched = [path.name for path in (tmp_path / "home").rglob("*.safetensors")]
            assert fetched == ["diffusion_pytorch_model.safetensors"], "the other variant is gigabytes for nothing"
            assert opened(tmp_path / "home", "someone/tiny", "bf16", HF_ENDPOINT=address).endswith(" bf16")


def test_a_hub_id_is_taken_from_the_cache_with_its_commit(saved: Path, tmp_path: Path) -> None:
    cached = tmp_path / "hub/models--someone--tiny"
    shutil.copytree(saved, cached / f"snapshots/{COMMIT}/transformer")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(COMMIT)
    assert opened(tmp_path, "someone/tiny", HF_HUB_OFFLINE="1") == f"someone/tiny@{COMMIT}"


def test_a_hub_id_without_network_is_one_quick_message(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "omnihuman.cli", "checkpoint", "verify"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    start = time.monotonic()
    for hub_id in ("Motif-Technologies/Motif-Video-2B", "Motif-Technologies/Motif-Video-2B@main"):
        result = subprocess.run([*command, hub_id], capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 2 and "Traceback" not in result.stderr
        for part in (
            "Motif-Technologies/Motif-Video-2B is no folder",
            "Licence: Apache-2.0.",
            "hf download",
            "--local-dir",
        ):
            assert part in result.stderr
    assert time.monotonic() - start < 60
