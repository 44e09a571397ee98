"""Samples of native sizes as one pack, against padding all to the largest, and against five buckets fitted to the mix.

Each way computes a training step (forward pass, gradients of a mean square) on the same samples with every condition
on. Padding is computed as samples of the padded size would be: masks would cost it more. Useful tokens are those of
the native sizes. A ratio above 1 means that the pack is faster. Goals: 95% useful tokens, 1.5 times as fast as padding.
"""

import argparse
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bases import CONFIGS, default_dtype, make_input, make_omnihuman
from measure import Ratio, machine, ratio
from omnihuman.batch import ModelInput
from omnihuman.model.memory import CHECKPOINTING, checkpoint_activations
from omnihuman.model.omnihuman import OmniHumanTransformer

Batches = Sequence[Sequence[ModelInput]]
Size = tuple[int, int, int]  # latent frames, rows and columns of latents
SEED = 0
NUM_BUCKETS = 5
USEFUL_GOAL, SPEED_GOAL = 0.95, 1.5
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def draw_mix(num_samples: int, longest_side: int, longest: int) -> list[Size]:
    """Native sizes: a third portrait, a third square, a third landscape; sides and lengths uniform, sides even.

    Args:
        longest_side: of the largest samples, in latent positions; the shortest has half of it.
        longest: latent frames of the longest sample; the shortest has a quarter.
    """
    draw = random.Random(SEED)
    mix = []
    for number in range(num_samples):
        long = 2 * draw.randint(longest_side // 4, longest_side // 2)
        short = max(2, 2 * round(long * draw.choice((9 / 16, 3 / 4)) / 2))
        height, width = ((long, short), (long, long), (short, long))[number % 3]
        mix.append((draw.randint(max(2, longest // 4), longest), height, width))
    return mix


def buckets(sizes: Sequence[Size], number: int) -> list[list[int]]:
    """Groups of samples, each padded to its own largest: those are joined whose joint padding costs least."""
    groups = [[i] for i in range(len(sizes))]

    def padded(group: list[int]) -> int:
        return len(group) * _volume(_largest([sizes[i] for i in group]))

    def cost(pair: tuple[int, int]) -> int:
        one, other = (groups[i] for i in pair)
        return padded(one + other) - padded(one) - padded(other)

    while len(groups) > number:
        later, earlier = min(((a, b) for a in range(len(groups)) for b in range(a)), key=cost)
        groups[earlier] += groups.pop(later)
    return groups


def _largest(sizes: Sequence[Size]) -> Size:
    latents, height, width = (max(of) for of in zip(*sizes, strict=True))
    return latents, height, width


def _volume(size: Size) -> int:
    """Video and reference tokens, times the area of a patch."""
    latents, height, width = size
    return (latents + 1) * height * width


def compare(
    size: str,
    mix: Sequence[Size],
    num_text: int,
    device: torch.device,
    dtype: torch.dtype,
    repetitions: int,
    checkpointing: str = "none",
) -> dict[str, object]:
    """Useful shares and ratios of time.

    Args:
        mix: native sizes.
        num_text: tokens of the longest prompt; the shortest has half.
        checkpointing: as a stage's `activation_checkpointing`, the same for all three ways.
    """
    model = make_omnihuman(size, device, dtype)
    checkpoint_activations(model, checkpointing)
    draw = random.Random(SEED)
    prompts = [draw.randint(num_text // 2, num_text) for _ in mix]
    groups = buckets(mix, NUM_BUCKETS)

    def given(native: Size, text_lengths: list[int]) -> ModelInput:
        return make_input(size, native, text_lengths, device, dtype)

    pack = [[given(native, [text]) for native, text in zip(mix, prompts, strict=True)]]
    padded = [[given(_largest(mix), [max(prompts)] * len(mix))]]
    bucketed = [
        [given(_largest([mix[i] for i in group]), [max(prompts[i] for i in group)] * len(group))] for group in groups
    ]
    native = sum(map(_volume, mix))
    in_buckets = sum(len(group) * _volume(_largest([mix[i] for i in group])) for group in groups)
    patch = CONFIGS[size].patch_size ** 2
    against = [_step(model, batches, dtype) for batches in (padded, bucketed)]
    to_padding, to_buckets = (ratio(_step(model, pack, dtype), other, repetitions, device) for other in against)
    useful = native // patch
    return {
        "samples": len(mix),
        "checkpointing": checkpointing,
        "useful_tokens": useful,
        "computed_tokens": _tokens(pack, patch),
        "useful_share": useful / _tokens(pack, patch),
        "useful_share_padding": native / (len(mix) * _volume(_largest(mix))),
        "useful_share_buckets": native / in_buckets,
        "seconds_per_useful_token": to_padding.seconds / useful,
        "seconds_per_useful_token_padding": to_padding.other_seconds / useful,
        "seconds_per_useful_token_buckets": to_buckets.other_seconds / useful,
        "padding_over_pack": to_padding,
        "buckets_over_pack": to_buckets,
    }


def _tokens(batches: Batches, patch: int) -> int:
    """Video and reference tokens that the network is given."""
    inputs = [one for batch in batches for one in batch]
    return sum(len(one.noisy) * _volume((one.noisy.shape[2], *one.noisy.shape[3:])) // patch for one in inputs)


def _step(
    model: OmniHumanTransformer, batches: Sequence[Sequence[ModelInput]], dtype: torch.dtype
) -> Callable[[], None]:
    """Gradients over batches that go through the network one after the other."""

    @default_dtype(dtype)
    def step() -> None:
        for batch in batches:
            loss: Tensor = sum(output.square().mean() for output in model.forward_packed(batch))  # pyright: ignore
            loss.backward()
        model.zero_grad(set_to_none=True)

    return step


def shown(result: dict[str, object]) -> list[str]:
    """Lines of a report, with the goals."""
    share, speed = result["useful_share"], result["padding_over_pack"]
    assert isinstance(share, float) and isinstance(speed, Ratio)
    lines = [
        f"  {'':<10} useful tokens   microseconds per useful token",
        *(
            f"  {name:<10} {result[f'useful_share{key}']:13.1%}   {1e6 * result[f'seconds_per_useful_token{key}']:.1f}"  # pyright: ignore
            for name, key in (("pack", ""), ("padding", "_padding"), ("buckets", "_buckets"))
        ),
        f"  padding / pack {speed}",
        f"  buckets / pack {result['buckets_over_pack']}",
    ]
    for what, value, goal in (("useful tokens", share, USEFUL_GOAL), ("padding / pack", speed.median, SPEED_GOAL)):
        lines.append(f"  goal {what} at least {goal}: {'reached' if value >= goal else 'not reached'}")
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=CONFIGS, default="small")
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--side", type=int, default=16, help="longest side in latent positions")
    parser.add_argument("--latents", type=int, default=6, help="latent frames of the longest sample")
    parser.add_argument("--text", type=int, default=32, help="tokens of the longest prompt")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--checkpointing", choices=CHECKPOINTING, default="none")
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    device = torch.device(given.device)
    mix = draw_mix(given.samples, given.side, given.latents)
    print(f"{machine(device)}, {given.dtype}, size {given.size}; seed {SEED}, samples (frames, rows, columns): {mix}")
    result = compare(given.size, mix, given.text, device, DTYPES[given.dtype], given.repetitions, given.checkpointing)
    print("\n".join(shown(result)))


if __name__ == "__main__":
    main()
