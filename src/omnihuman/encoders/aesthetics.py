"""LAION's aesthetic predictor on CLIP, in the layout of christophschuhmann/improved-aesthetic-predictor (Apache-2.0).

Its weights are a pickled state dict of five linear layers on the normalised 768 numbers of CLIP ViT-L/14; they were
fitted to ratings of 1 to 10. The dropout between the layers, which takes numbers in the names, does nothing in use.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from omnihuman.encoders.weights import (
    LocalWeights,
    Published,
    load_frozen,
    pinned_state_dict,
)

CLIP = Published(
    option="score.clip_weights",
    hub_id="openai/clip-vit-large-patch14",
    licence="MIT by its repository; see the limits of use in its model card",
    without="score.aesthetic_weights empty",
)
OPTION = "score.aesthetic_weights"


class Predictor(nn.Module):
    """The five layers; names are the published ones."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, embeddings: Tensor) -> Tensor:
        """[N, width], of length 1 each -> [N], about 1..10."""
        return self.layers(embeddings)[:, 0]


class Aesthetics:
    """CLIP's tower for pictures with the predictor behind it."""

    def __init__(self, clip: LocalWeights, predictor: Path, predictor_sha256: str) -> None:
        """Loads both.

        Args:
            clip: of `weights.pinned_weights`; the tower alone or the whole of CLIP.

        Raises:
            UserError: files are missing, incomplete or not the pinned ones.
        """
        from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

        network = load_frozen(CLIPVisionModelWithProjection, clip, "CLIP's tower for pictures with its projection")
        self._network = network
        self.side: int = network.config.image_size
        """Pixels of the square that it sees."""
        self._prepare = CLIPImageProcessorPil(
            size={"shortest_edge": self.side}, crop_size={"height": self.side, "width": self.side}
        )
        self._predictor = Predictor(network.config.projection_dim)
        layout = "christophschuhmann/improved-aesthetic-predictor for this CLIP"
        pinned_state_dict(OPTION, predictor, predictor_sha256, self._predictor, layout)
        self._predictor.eval()

    @torch.inference_mode()
    def rate(self, pictures: np.ndarray) -> np.ndarray:
        """float64 [N], about 1..10, of uint8 [N, H, W, 3] in RGB."""
        squares = self._prepare(images=list(pictures), return_tensors="pt").pixel_values
        embeddings = self._network(pixel_values=squares).image_embeds
        return self._predictor(nn.functional.normalize(embeddings, dim=1)).double().numpy()
