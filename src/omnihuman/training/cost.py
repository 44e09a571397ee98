"""What each draw costs to compute, by which a step is divided evenly over ranks."""

import pandas as pd

from omnihuman.config.schema.model import Model
from omnihuman.data.shards import Encoders
from omnihuman.encoders.video_codec import SPATIAL_FACTOR, num_latent_frames
from omnihuman.model.flops import omnihuman_flops
from omnihuman.training.dataset import SampleSettings, drawn_conditions
from omnihuman.training.packing import Cost, TokenCounts
from omnihuman.training.sampling import Draw


class DrawFlops:
    """Operations of each draw's forward pass with the conditions that it will have, and its text at its longest.

    A pure function of the draw, so that neither ranks nor resumes disagree about it.
    """

    def __init__(self, samples: pd.DataFrame, encoders: Encoders, model: Model, settings: SampleSettings) -> None:
        self._sizes = samples[["height", "width"]].to_numpy() // SPATIAL_FACTOR
        self._eligible = samples[["audio_eligible", "pose_eligible"]].to_numpy(bool)
        self._num_latents = num_latent_frames(encoders.num_frames)
        self._encoders, self._model, self._settings = encoders, model, settings
        self._known: dict[tuple[int, int, int, bool, bool], float] = {}

    def __call__(self, draw: Draw) -> float:
        """Of one draw."""
        has_audio, has_pose = self._eligible[draw.row]
        active = drawn_conditions(self._settings, draw, has_audio=has_audio, has_pose=has_pose)
        num_latents = min(draw.num_latents or self._num_latents, self._num_latents)
        height, width = self._sizes[draw.row].tolist()
        key = (num_latents, height, width, active.reference, active.audio)
        if key not in self._known:
            text = [self._encoders.max_text_tokens]
            self._known[key] = float(
                omnihuman_flops(self._model, self._encoders.widths, [key[:3]], text, [key[3]], [key[4]])
            )
        return self._known[key]


def cost_of_draws(
    samples: pd.DataFrame, encoders: Encoders, model: Model, settings: SampleSettings, tokens: TokenCounts
) -> Cost:
    """Operations; tokens of a model whose operations nobody has counted."""
    if model.audio_fusion != "cross_attention":
        return tokens
    return DrawFlops(samples, encoders, model, settings)
