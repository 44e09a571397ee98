"""DINO ViT-B/16 (Caron et al., 2021), by which VBench knows a subject again."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.weights import Published, load_frozen, pinned_weights
from omnihuman.evaluation.extractors.part import Part
from omnihuman.evaluation.metrics.measure import Extractor, Shown

DINO = Published(
    option="evaluate.extractors.dino_weights",
    hub_id="facebook/dino-vitb16",
    licence="Apache-2.0",
    without="evaluate.extractors.dino_weights empty",
)
SIDE, BATCH = 224, 16
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def dino_part(config: Extractors, device: str) -> Part[np.ndarray]:
    """Features [F, 768] of every frame.

    Raises:
        UserError: the weights are missing or not the pinned ones.
    """
    from transformers import ViTModel

    # DINO has no layer above its class token.
    tower = SimpleNamespace(from_pretrained=partial(ViTModel.from_pretrained, add_pooling_layer=False))
    files = pinned_weights(config.dino_weights, DINO, config.dino_sha256)
    network = load_frozen(tower, files, "DINO's vision transformer").to(device)
    told = f"every frame, bilinear to a short side of {SIDE} without smoothing, as VBench"
    extractor = Extractor("DINO ViT-B/16", told, config.dino_sha256, calibrated=True)
    return Part(lambda shown: embed_frames(network, shown), extractor)


@torch.inference_mode()
def embed_frames(network: Any, shown: Shown) -> np.ndarray:
    """The class token of every frame, float32 [F, d]."""
    height, width = shown.frames.shape[1:3]
    short = min(height, width)
    size = (SIDE * height // short, SIDE * width // short)
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
    found = []
    for part in torch.from_numpy(np.ascontiguousarray(shown.frames)).split(BATCH):
        pictures = functional.interpolate(part.permute(0, 3, 1, 2).float() / 255, size, mode="bilinear")
        normal = ((pictures - mean) / deviation).to(network.device)
        found.append(network(pixel_values=normal, interpolate_pos_encoding=True).last_hidden_state[:, 0].cpu())
    return torch.cat(found).numpy()
