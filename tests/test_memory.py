"""Activation checkpointing and compilation change what a step costs, never what it computes."""

import copy
from dataclasses import replace

import pytest
import torch
from tests.test_packing import sample
from tests.tiny import CONFIG, random_model
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from omnihuman.model.memory import checkpoint_activations, compile_blocks

COMPLETE = replace(CONFIG, patch_size=2, num_decoder_blocks=1, text_attention_single=True, prediction="velocity")
SAMPLES = [sample(3, 2, 4, (True, True, True, False), 1), sample(2, 4, 2, (False, True, False, True), 2)]


class Products(TorchDispatchMode):
    """Counts products of matrices."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return func(*args, **(kwargs or {}))


def step(how: str) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of one step, and how many products of matrices its backward pass takes."""
    model = random_model(config=COMPLETE)
    checkpoint_activations(model, how)
    loss = torch.stack([output.square().mean() for output in model.forward_packed(SAMPLES)]).sum()
    with Products() as products:
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, products.count


def test_checkpointing_computes_the_same_gradients_and_only_full_repeats_products():
    expected, products = step("none")
    for how in ("selective", "full"):
        gradients, count = step(how)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                gradient, expected[name], rtol=1e-5, atol=1e-6, msg=lambda text, n=name: n + text
            )
        assert (count > products) == (how == "full")


def test_a_copied_model_uses_its_own_weights():
    model = random_model(config=COMPLETE)
    checkpoint_activations(model, "selective")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.base.single_blocks.parameters():
            parameter.zero_()
        assert not torch.equal(copied.forward_packed(SAMPLES)[0], model.forward_packed(SAMPLES)[0])


def test_checkpointing_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'some' is not known, expected one of none, selective, full"):
        checkpoint_activations(random_model(), "some")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("how", ["none", "selective"])
def test_compiled_blocks_compute_the_same_for_packs_of_any_sizes(how: str):
    torch._dynamo.reset()
    counters.clear()
    model = random_model(config=COMPLETE)
    expected = [model.forward_packed(samples) for samples in (SAMPLES, SAMPLES[::-1], SAMPLES[:1])]
    checkpoint_activations(model, how)
    compile_blocks(model)
    for samples, outputs in zip((SAMPLES, SAMPLES[::-1], SAMPLES[:1]), expected, strict=True):
        compiled = model.forward_packed(samples)
        for output, other in zip(compiled, outputs, strict=True):
            torch.testing.assert_close(output, other, rtol=1e-4, atol=1e-4)
        torch.stack([output.square().mean() for output in compiled]).sum().backward()
    assert counters["stats"]["unique_graphs"] > 0
