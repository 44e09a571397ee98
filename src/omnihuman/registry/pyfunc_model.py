"""The code that MLflow stores with a version (models-from-code): safetensors in, MP4 out, nothing is unpickled.

Loading it needs this package, at the commit that the version's tag `git_commit` names.
"""

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from omnihuman.config.load import read_yaml
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.config.strict import instantiate
from omnihuman.inference.generator import load_generator
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest


class OmniHumanModel(PythonModel):
    """Renders a table of pictures and sounds; columns as in the version's signature."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the weights and the sampling parameters that the version was evaluated with."""
        params = read_yaml(Path(context.artifacts["params.yaml"]))
        folder = Path(context.artifacts["model.safetensors"]).parent
        self.generator = load_generator(folder, instantiate(Sampling, params["sampling"], "sampling"))
        self.config = instantiate(Render, params["render"], "render")

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One video a row.

        Args:
            context: of the loaded version.
            model_input: columns `image` and `audio`, the bytes of a picture file and of a sound file, and optionally
                `text`.
            params: optional `seed` of the noise.

        Returns:
            The column `video`, bytes of an MP4.

        Raises:
            UserError: a picture or a sound cannot be read.
        """
        seed = int((params or {}).get("seed", 0))
        rows = model_input.to_dict("records")
        return pd.DataFrame({"video": [self._render(row, seed) for row in rows]})

    def _render(self, row: dict[Any, Any], seed: int) -> bytes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            image, audio, video = folder / "image", folder / "audio", folder / "video.mp4"
            image.write_bytes(row["image"])
            audio.write_bytes(row["audio"])
            request = RenderRequest(image, video, audio, text=row.get("text") or "", seed=seed)
            render(request, self.generator, self.config, lambda finished, total: None)
            return video.read_bytes()


set_model(OmniHumanModel())
