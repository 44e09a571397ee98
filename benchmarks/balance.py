"""How evenly ranks are loaded, by measured seconds: draws divided by count, tokens, operations or those seconds.

Each kind of sample (size, reference on or off, sound on or off) is timed alone, forward and backward, the fastest of
several, since other work only adds. Then steps of mixed draws are divided in each way, and the seconds of a rank's
samples added up: the slowest rank over the mean one is what a step takes longer than it need. Dividing by the seconds
themselves is the best that a table of measured runtimes could do.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from data_path import ENCODERS, MIXED_SIZES, SEED, STAGE, table
from measure import machine
from omnihuman.batch import Conditions, TrainingBatch
from omnihuman.conditions.audio import WINDOW
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.model import Model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.cost import DrawFlops
from omnihuman.training.dataset import SampleSettings, drawn_conditions
from omnihuman.training.module import sample_losses
from omnihuman.training.packing import Cost, Division, TokenCounts
from omnihuman.training.sampling import Draw, SampleOrder

Kind = tuple[int, int, bool, bool]
"""Width and height in pixels, reference on, sound on."""
TEXT = 64


def model_of(width: int) -> Model:
    """Heads of 64; two blocks of both kinds, whose proportions are those of more."""
    return Model(
        width=width, num_heads=width // 64, num_dual_blocks=2, num_single_blocks=2, rope_axes=(16, 24, 24),
        patch_size=2, audio_width=width // 4, prediction="velocity",
    )  # fmt: skip


def sample(kind: Kind, num_latents: int, device: torch.device) -> TrainingBatch:
    """Noise."""
    width, height, reference, audio = kind
    channels, shape, encoded = ENCODERS.latent_channels, (height // 8, width // 8), ENCODERS.widths

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(1, *size, device=device)

    def on(value: bool) -> torch.Tensor:
        return torch.tensor([value], device=device)

    conditions = Conditions(
        text=noise(TEXT, encoded.text_width),
        text_mask=torch.ones(1, TEXT, dtype=torch.bool, device=device),
        reference=noise(channels, *shape),
        reference_on=on(reference),
        reference_keypoints=noise(encoded.num_keypoints, 3),
        speech=noise(num_latents, WINDOW, encoded.speech_layers, encoded.speech_width),
        speech_mask=torch.ones(1, num_latents, WINDOW, dtype=torch.bool, device=device),
        audio_on=on(audio),
        keypoints=noise(4 * (num_latents - 1) + 1, encoded.num_keypoints, 3),
        pose_on=on(True),
        motion=noise(channels, 2, *shape),
        motion_on=on(False),
    )
    latents = noise(channels, num_latents, *shape)
    return TrainingBatch(latents, torch.randn_like(latents), torch.rand(1, device=device), conditions)


def measured(
    model: OmniHumanTransformer, kinds: list[Kind], num_latents: int, repetitions: int, device: torch.device
) -> dict[Kind, float]:
    """Seconds of a training step's forward and backward pass of each kind, in turn."""
    found: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repetitions + 1):
        for kind in kinds:
            pack = (sample(kind, num_latents, device),)
            _wait(device)
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                sample_losses(model, pack, Diffusion()).sum().backward()
            _wait(device)
            found[kind].append(time.perf_counter() - start)
    return {kind: min(of_kind[1:]) for kind, of_kind in found.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--frames", type=int, default=9, help="of a window, 4k + 1")
    parser.add_argument("--draws-per-rank", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    device, config = torch.device(given.device), model_of(given.width)
    encoders, samples = replace(ENCODERS, num_frames=given.frames), table(20_000, MIXED_SIZES)
    settings = SampleSettings("3_pose", STAGE, SEED, 0.5, 0.9, TEXT, Diffusion())
    tokens = TokenCounts(samples, replace(encoders, max_text_tokens=TEXT), config.patch_size)
    flops = DrawFlops(samples, replace(encoders, max_text_tokens=TEXT), config, settings)

    @cache
    def kind_of(draw: Draw) -> Kind:
        row = samples.iloc[draw.row]
        has_audio, has_pose = bool(row["audio_eligible"]), bool(row["pose_eligible"])
        active = drawn_conditions(settings, draw, has_audio=has_audio, has_pose=has_pose)
        return int(row["width"]), int(row["height"]), active.reference, active.audio

    kinds = [
        (*size, reference, audio) for size in MIXED_SIZES for reference in (False, True) for audio in (False, True)
    ]
    torch.manual_seed(SEED)
    model = OmniHumanTransformer(config, encoders.widths).to(device)
    table_of = measured(model, kinds, (given.frames - 1) // 4 + 1, given.repetitions, device)
    seconds: Cost = lambda draw: table_of[kind_of(draw)]  # noqa: E731
    print(f"{machine(device)}; width {given.width}, {given.frames} frames, {given.repetitions} repetitions")
    first, last = kinds[3], kinds[-1]
    print(f"  {first}: {1000 * table_of[first]:.0f} ms, {last}: {1000 * table_of[last]:.0f} ms")
    ways: dict[str, Callable[[int], Division]] = {
        "count": lambda ranks: Division(None, ranks),
        "tokens": lambda ranks: Division(None, ranks, tokens),
        "operations": lambda ranks: Division(None, ranks, tokens, flops),
        "seconds": lambda ranks: Division(None, ranks, tokens, seconds),
    }
    for per_rank in given.draws_per_rank:
        order = SampleOrder(samples, STAGE, per_rank * given.ranks, SEED, "3_pose")
        batches = [order.batch(step) for step in range(given.steps)]
        uneven = {}
        for name, divide in ways.items():
            loads = [
                [sum(map(seconds, draws)) for (draws,) in divide(given.ranks).packs(draws, 1)] for draws in batches
            ]
            uneven[name] = statistics.mean(max(load) / float(np.mean(load)) for load in loads)
        told = ", ".join(f"by {name} {value:.3f}" for name, value in uneven.items())
        print(f"  {given.ranks} ranks of {per_rank} draws on average, slowest over mean: {told}")


if __name__ == "__main__":
    main()
