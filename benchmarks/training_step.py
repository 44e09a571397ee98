"""How long a training step of the demo's model takes, and what part of it is making the batch.

Prints medians over repetitions with shape, dtype and threads; compare ratios within one run only.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny import WIDTHS, random_conditions

from omnihuman.batch import TrainingBatch
from omnihuman.config.compose import compose
from omnihuman.encoders.video_codec import CosineCodec, num_frames
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.module import sample_losses
from omnihuman.training.optimizer import make_optimizer

NUM_LATENTS, HEIGHT, WIDTH = 5, 8, 8
REPETITIONS = 7


def median_seconds(call: Callable[[], object]) -> float:
    """Median over repetitions, after one call that does not count."""
    call()
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Measures and prints."""
    params = compose("demo", [])
    model = OmniHumanTransformer(params.model, WIDTHS)
    batch_size = params.training.global_batch_size
    one = random_conditions(batch=2, num_latents=NUM_LATENTS, height=HEIGHT, width=WIDTH)
    conditions = type(one)(**{name: torch.cat([value] * (batch_size // 2)) for name, value in vars(one).items()})
    latents = torch.randn(batch_size, WIDTHS.latent_channels, NUM_LATENTS, HEIGHT, WIDTH)
    batch = TrainingBatch(latents, torch.randn_like(latents), torch.rand(batch_size), conditions)
    optimizer = make_optimizer(model, params.training, learning_rate=1e-3)

    def train() -> None:
        sample_losses(model, (batch,), params.diffusion).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def forward() -> None:
        model(batch.noise, batch.sigma, batch.conditions)

    codec = CosineCodec()
    video = torch.zeros(batch_size, 3, num_frames(NUM_LATENTS), 8 * HEIGHT, 8 * WIDTH)
    step = median_seconds(train)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizing = median_seconds(optimizer.step)
    print(
        f"batch {batch_size} of {NUM_LATENTS} x {HEIGHT} x {WIDTH} latents, float32, {torch.get_num_threads()} threads"
    )
    for name, seconds in (
        ("training step", step),
        ("forward", median_seconds(forward)),
        ("optimizer", optimizing),
        ("codec, encode", median_seconds(lambda: codec.encode(video))),
        ("codec, decode", median_seconds(lambda: codec.decode(latents))),
    ):
        print(f"  {name:<16} {1000 * seconds:8.1f} ms   {seconds / step:6.3f} of a step")


if __name__ == "__main__":
    main()
