"""Does a registered version load and render? Run in a process of its own that has nothing in memory."""

import io
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from omnihuman.errors import UserError
from omnihuman.registry.store import MODEL_NAME

_SECONDS = 0.4
_SAMPLE_RATE = 16_000
_DEADLINE_SECONDS = 900.0


def smoke_test(version: int) -> None:
    """Loads the version from the registry without unpickling and renders one short clip, in a clean process.

    Raises:
        UserError: it does not load, does not render, or what it renders is no video.
    """
    command = [sys.executable, "-m", "omnihuman.registry.smoke", str(version)]
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_DEADLINE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"version {version} rendered nothing within {_DEADLINE_SECONDS:g} s") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"version {version} does not load and render in a clean process: {said[0]}")


def _render_once(version: int) -> None:
    import mlflow
    import numpy as np
    import pandas as pd
    from PIL import Image
    from scipy.io import wavfile

    from omnihuman.registry.store import connect

    connect()
    picture, sound = io.BytesIO(), io.BytesIO()
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    Image.fromarray(np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(128)), axis=-1)).save(
        picture, "PNG"
    )
    seconds = np.arange(round(_SECONDS * _SAMPLE_RATE)) / _SAMPLE_RATE
    wavfile.write(sound, _SAMPLE_RATE, np.round(9000 * np.sin(2 * np.pi * 220 * seconds)).astype(np.int16))
    model = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}/{version}")
    rendered = model.predict(pd.DataFrame({"image": [picture.getvalue()], "audio": [sound.getvalue()]}))
    _check(rendered["video"].iloc[0])


def _check(video: bytes) -> None:
    import numpy as np

    from omnihuman.media.video import read_frames

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        path.write_bytes(video)
        frames = read_frames(path, fps=25.0).pixels
    if len(frames) != round(_SECONDS * 25):
        raise ValueError(f"{len(frames)} frames for {_SECONDS} s of sound")
    if np.ptp(frames) == 0:
        raise ValueError("every pixel of the video has the same value")


if __name__ == "__main__":
    try:
        _render_once(int(sys.argv[1]))
    except Exception as error:  # the caller shows the last line
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
