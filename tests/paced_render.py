"""Renders in a process that can be killed, no further than is allowed, and keeps the latents once the video is done.

Called as `python -m tests.paced_render FOLDER CHAINING`: FOLDER holds model/, picture.png, sound.wav and `allowed`, the
number of segments after which the render waits. It leaves video.mp4 and latents/.
"""

import sys
import time
from pathlib import Path

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference import render as rendering
from omnihuman.inference.generator import load_generator
from omnihuman.inference.kept_segments import KeptSegments
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest

ALLOWED = "allowed"


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
