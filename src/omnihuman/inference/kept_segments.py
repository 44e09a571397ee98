"""Finished segments of a video that is being made, so that a killed render goes on where it was."""

import logging
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from omnihuman.storage.files import publish

log = logging.getLogger(__name__)


class KeptSegments:
    """The latents of each segment in a file of its own; the folder belongs to one video's content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, number: int) -> Tensor | None:
        """Latents [1, C, T, h, w] of a segment; None where it is not finished, or its file is damaged."""
        path = self._path(number)
        try:
            return load_file(path)["latents"] if path.is_file() else None
        except (SafetensorError, OSError, KeyError) as error:
            log.warning("%s is damaged (%s): this segment is made again", path, error)
            return None

    def save(self, number: int, latents: Tensor) -> None:
        """Publishes a segment."""
        with publish(self._path(number)) as temporary:
            temporary.write_bytes(save({"latents": latents.contiguous()}))  # unlike save_file it raises OSError

    def clear(self) -> None:
        """Removes all; to be called once the video is published."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"segment-{number:05d}.safetensors"
