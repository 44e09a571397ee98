"""Captions by BLIP (Li et al., 2022) through transformers: a small vision-language model without code of its own."""

import numpy as np
import torch

from omnihuman.encoders.weights import (
    LocalWeights,
    Published,
    load_frozen,
    not_loaded,
)
from omnihuman.errors import UserError

BLIP = Published(
    option="caption.weights",
    hub_id="Salesforce/blip-image-captioning-base",
    licence="BSD-3-Clause by its model card",
    without="caption.method=template",
    tokenizer="",
)


class Blip:
    """A frozen captioner of single pictures."""

    def __init__(self, files: LocalWeights, max_tokens: int) -> None:
        """Loads network and tokenizer.

        Args:
            files: of `weights.pinned_weights`.
            max_tokens: longest caption.

        Raises:
            UserError: the files are incomplete or of another kind.
        """
        from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessorPil

        if (kind := files.config().get("model_type")) != "blip":
            raise UserError(f"{BLIP.option}: {files.folder} holds a model of type {kind}, not blip: {BLIP.remedy()}")
        network = load_frozen(BlipForConditionalGeneration, files, "BLIP")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(files.tokenizer, local_files_only=True)
        except (OSError, ValueError) as error:
            raise not_loaded(error, files, "BLIP's tokenizer") from error
        self._network = network
        side = network.config.vision_config.image_size
        self._prepare = BlipImageProcessorPil(size={"height": side, "width": side})
        self._max_tokens = max_tokens

    @torch.inference_mode()
    def caption(self, picture: np.ndarray) -> str:
        """One sentence about uint8 [H, W, 3] in RGB; the most likely word each time, so the same one always."""
        pixels = self._prepare(images=[picture], return_tensors="pt").pixel_values
        ids = self._network.generate(pixel_values=pixels, max_new_tokens=self._max_tokens, do_sample=False, num_beams=1)
        return " ".join(self._tokenizer.decode(ids[0], skip_special_tokens=True).split())
