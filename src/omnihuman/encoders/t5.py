"""Published text encoders: T5, UMT5 and T5Gemma2 through transformers.

Facts from diffusers 0.42 (pipelines/motif_video/pipeline_motif_video.py): the prompt is tokenized with special tokens
and cut at 512; the first output of `T5Gemma2Encoder`, the normalised last hidden states, goes to the model with the
tokenizer's mask. Here the prompt is not padded in the first place, which gives the same tokens without a mask: T5's
positions are relative, T5Gemma2's are rotary, and both attend in both directions.
"""

from typing import Any

import numpy as np
import torch

from omnihuman.encoders.weights import (
    LocalWeights,
    Published,
    check_loaded,
    check_sha256,
    find_weights,
    not_loaded,
    quiet_loading,
)
from omnihuman.errors import UserError

_WITHOUT = "encode.text_encoder=hashed_words"
T5 = Published(
    option="encode.text_weights",
    hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    licence="UMT5-XXL, Apache-2.0, in its folders text_encoder and tokenizer",
    without=_WITHOUT,
    subfolder="text_encoder",
    tokenizer="tokenizer",
)
T5_GEMMA_2 = Published(
    option="encode.text_weights",
    hub_id="Motif-Technologies/Motif-Video-2B",
    licence="Apache-2.0 by its model card, derived from Google's T5Gemma 2, see that one's terms too;"
    " in its folders text_encoder and tokenizer",
    without=_WITHOUT,
    subfolder="text_encoder",
    tokenizer="tokenizer",
)
_KINDS = {"t5": ("t5", "umt5", "mt5"), "t5gemma2": ("t5gemma2", "t5gemma2_encoder")}
"""What config.json may say under model_type."""


class PublishedText:
    """A frozen encoder of prompts; one class for both families, which differ in how they are loaded only."""

    def __init__(
        self,
        name: str,
        weights: str,
        max_tokens: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        expected_sha256: str = "",
    ) -> None:
        """Loads network and tokenizer.

        Args:
            name: `t5` (also UMT5) or `t5gemma2`.
            weights: folder or hub id; the encoder with its tokenizer beside it, or a pipeline with the folders
                `text_encoder` and `tokenizer`.
            max_tokens: longer prompts are cut, the closing special token kept.
            expected_sha256: of the files, where the data were encoded before.

        Raises:
            UserError: the weights are missing, incomplete, only pickles, or of another family.
        """
        from transformers import AutoTokenizer

        published = T5 if name == "t5" else T5_GEMMA_2
        files = find_weights(weights, published)
        check_sha256(files, expected_sha256, published)
        if (kind := files.config().get("model_type")) not in _KINDS[name]:
            raise UserError(
                f"encode.text_encoder={name}: {files.folder} holds a model of type {kind}, expected one of"
                f" {', '.join(_KINDS[name])}: {published.remedy()}"
            )
        self.name = name
        self.weights = files
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(files.tokenizer, local_files_only=True)
            network, told = _load(str(kind), files, dtype)
        except (OSError, ValueError, RuntimeError) as error:
            raise not_loaded(error, files, "an encoder of text with its tokenizer") from error
        check_loaded(told, files)
        self._network = network.to(device).requires_grad_(False).eval()
        self._max_tokens = max_tokens
        self.width = int(network.get_input_embeddings().weight.shape[1])

    def encode(self, prompt: str) -> np.ndarray:
        """float32 [L, width] with 1 <= L <= max_tokens; all of them real tokens."""
        ids = self._tokenizer(prompt, truncation=True, max_length=self._max_tokens).input_ids or [self._anything()]
        tokens = torch.tensor([ids], device=self._network.device)
        with torch.inference_mode():
            states = self._network(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
        return states[0].float().cpu().numpy()

    def num_tokens(self, prompt: str) -> int:
        """Of the whole prompt, special tokens included."""
        return len(self._tokenizer(prompt, truncation=False, verbose=False).input_ids)

    def _anything(self) -> int:
        """The token that stands for an empty prompt where the tokenizer adds none."""
        known = (self._tokenizer.eos_token_id, self._tokenizer.bos_token_id, self._tokenizer.pad_token_id)
        return next((int(token) for token in known if token is not None), 0)


def _load(kind: str, files: LocalWeights, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    import transformers

    quiet_loading()
    classes: dict[str, Any] = {
        "t5": transformers.T5EncoderModel,
        "mt5": transformers.MT5EncoderModel,
        "umt5": transformers.UMT5EncoderModel,
        "t5gemma2": transformers.T5Gemma2Model,
        "t5gemma2_encoder": transformers.T5Gemma2Encoder,
    }
    network, told = classes[kind].from_pretrained(
        files.folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
    )
    if kind == "t5gemma2":
        network = network.encoder
    # Prompts pass through the text model alone; the tower for pictures would only take memory.
    return (network.text_model if kind.startswith("t5gemma2") else network), told
