"""Memory and speed of the blocks: what is kept for the backward pass, and compilation."""

from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from omnihuman.model.omnihuman import OmniHumanTransformer

CHECKPOINTING = ("none", "selective", "full")
_aten = torch.ops.aten
# What costs most to compute again: products of matrices and attention. Norms, modulation, GELU and rotation cost little
# and hold most of the memory.
_KEPT = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}


def blocks(model: OmniHumanTransformer) -> Iterator[nn.Module]:
    """The parts that are compiled, and whose activations are computed again, one by one."""
    yield from model.base.dual_blocks
    yield from model.base.single_blocks
    yield from model.base.decoder_blocks
    yield from model.audio_attention


def checkpoint_activations(model: OmniHumanTransformer, how: str) -> None:
    """Keeps less of the forward pass for the backward pass, from now on.

    Args:
        how: `none`; `selective` keeps products of matrices and attention and computes the rest again; `full` keeps the
            blocks' inputs alone.

    Raises:
        ValueError: `how` is none of these.
    """
    if how not in CHECKPOINTING:
        raise ValueError(f"activation checkpointing {how!r} is not known, expected one of {', '.join(CHECKPOINTING)}")
    options: dict[str, Any] = {"use_reentrant": False}
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in blocks(model):
        if how == "none":
            block.__dict__.pop("forward", None)
        else:
            block.forward = MethodType(_computed_again(options), block)


def compile_blocks(model: OmniHumanTransformer) -> None:
    """Compiles each block in place at its next call; blocks of one kind share what was compiled."""
    for block in blocks(model):
        block.compile(dynamic=True)


def _computed_again(options: dict[str, Any]) -> Callable[..., Any]:
    """A method, so that a copied block uses its own weights; a `partial` would be left uncompiled, without a word."""

    def call(block: nn.Module, *tensors: Any) -> Any:
        return checkpoint(type(block).forward, block, *tensors, **options)

    return call


def _policy(_: Any, operator: Any, *__: Any, **___: Any) -> CheckpointPolicy:
    kept = operator in _KEPT or "varlen" in str(operator)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
