"""Renders in a process that can be killed, no further than is allowed, and keeps the latents once the video is done.

Called as `python -m tests.paced_render FOLDER CHAINING`: FOLDER holds model/, picture.png, sound.wav and `allowed`, the
number of segments after which the render waits. It leaves video.mp4 and latents/.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile
from tests.tiny import DESCRIPTION, random_model

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference import render as rendering
from omnihuman.inference.generator import load_generator
from omnihuman.inference.kept_segments import KeptSegments
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest
from omnihuman.model.checkpoint import save_model

ALLOWED = "allowed"


def write_inputs(folder: Path, seconds: float) -> None:
    """The model, the picture and so much noise to speak, into an existing folder."""
    (folder / "model").mkdir()
    save_model(folder / "model", random_model(), DESCRIPTION)
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "picture.png")
    wavfile.write(folder / "sound.wav", 16000, random.normal(0, 3000, round(seconds * 16000)).astype(np.int16))


def main(folder: Path, chaining: str) -> None:
    """Renders."""

    class Moved(KeptSegments):
        def clear(self) -> None:
            self.folder.rename(folder / "latents")

    rendering.KeptSegments = Moved

    def wait(finished: int, _: int) -> None:
        while finished >= int((folder / ALLOWED).read_text() or 0):
            time.sleep(0.01)

    request = RenderRequest(folder / "picture.png", folder / "video.mp4", audio=folder / "sound.wav")
    config = Render(upscale=1, chaining=chaining, content_credentials=False)  # signatures differ each time
    render(request, load_generator(folder / "model", Sampling(num_steps=3)), config, wait)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
