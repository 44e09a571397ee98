"""A version of the model and inputs; a module names this one in `pytest_plugins`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile
from tests.batches import random_version

from omnihuman.registry.versions import ModelVersion

SOUND_SECONDS = 0.4


@pytest.fixture
def version(tmp_path: Path) -> ModelVersion:
    """A tiny random model as the registry would hand it out."""
    return random_version(tmp_path / "version", 1)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with two pictures and a sound."""
    folder = tmp_path / "in puts"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 255, (60, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    samples = 9000 * np.sin(np.arange(round(SOUND_SECONDS * 16000)) / 12)
    wavfile.write(folder / "s.wav", 16000, samples.astype(np.int16))
    return folder
