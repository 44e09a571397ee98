"""Rendering: guidance in one batch or one after another, our step against the diffusers pipeline's, and what is not the
model's time.

Ratios are of processor time, of pairs in turn within one run; above 1 ours, or one batch, is faster.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.io import wavfile
from torch import Tensor

from bases import WIDTHS, Shape, make_bases, make_input, make_omnihuman
from measure import LiveBytes, machine, ratio
from omnihuman.batch import Conditions
from omnihuman.config.compose import compose
from omnihuman.config.schema.evaluate import Render
from omnihuman.data.shards import Encoders
from omnihuman.diffusion.guidance import branches, guided_velocity
from omnihuman.diffusion.solver import euler
from omnihuman.diffusion.timesteps import sampling_schedule
from omnihuman.encoders.speech import LogMel
from omnihuman.encoders.text import HashedWords
from omnihuman.encoders.video_codec import CosineCodec
from omnihuman.inference.generator import Generator, LoadedGenerator
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest
from omnihuman.model.base_input import base_output
from omnihuman.model.omnihuman import OmniHumanTransformer

CPU = torch.device("cpu")
_STEPS, _SCALE = 4, 5.0


def batched_against_sequential(size: str, repetitions: int) -> None:
    """Three branches of one segment."""
    model, made = (
        make_omnihuman(size, CPU, torch.float32).eval(),
        make_input(size, (3, 8, 8), [32], CPU, torch.float32),
    )
    asked = branches(made.conditions, torch.zeros(1, WIDTHS[size].text_width), 3.0, 5.0)

    @torch.inference_mode()
    def step(batched: bool) -> Tensor:
        return guided_velocity(model, made.noisy, made.sigma, asked, batched)

    found = ratio(lambda: step(True), lambda: step(False), repetitions, CPU, time.process_time)
    held = []
    for batched in (True, False):
        with LiveBytes() as live:
            step(batched)
        held.append(live.peak / 2**20)
    print(f"guidance with {len(asked)} branches, {size}, one after another / one batch: {found}")
    print(f"  activations at one time: one batch {held[0]:.0f} MiB, one after another {held[1]:.0f} MiB")


def step_against_pipeline(size: str, shape: Shape, repetitions: int) -> None:
    """The same weights, text, noise and steps; both ask for the two branches one after another."""
    from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.pipelines.motif_video.pipeline_motif_video import MotifVideoPipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    bases, channels = make_bases(size, CPU, torch.float32), WIDTHS[size].latent_channels
    assert bases.theirs is not None
    draw = torch.Generator().manual_seed(3)
    noise = torch.randn(1, channels, shape.num_latents, shape.height, shape.width, generator=draw)
    text, empty = (torch.randn(1, shape.num_text, WIDTHS[size].text_width, generator=draw) for _ in range(2))
    all_tokens = torch.ones(1, shape.num_text, dtype=torch.bool)
    vae = AutoencoderKLWan(base_dim=3, z_dim=channels, dim_mult=[1, 1, 1, 1], num_res_blocks=1)  # gives its sizes only
    pipeline = MotifVideoPipeline(
        FlowMatchEulerDiscreteScheduler(),
        vae,
        None,  # pyright: ignore[reportArgumentType]
        None,  # pyright: ignore[reportArgumentType]
        bases.theirs,  # pyright: ignore[reportArgumentType]
        ClassifierFreeGuidance(guidance_scale=_SCALE),
    )
    pipeline.set_progress_bar_config(disable=True)

    def theirs() -> Tensor:
        made = pipeline(
            prompt_embeds=text,
            prompt_attention_mask=all_tokens,
            negative_prompt_embeds=empty,
            negative_prompt_attention_mask=all_tokens,
            latents=noise.clone(),
            height=8 * shape.height,
            width=8 * shape.width,
            num_frames=4 * shape.num_latents - 3,
            num_inference_steps=_STEPS,
            output_type="latent",
            return_dict=False,
        )
        return made[0]

    beside = torch.zeros(1, channels + 1, *noise.shape[2:])
    asked = [(_with_text(text), _SCALE), (_with_text(empty), 1 - _SCALE)]

    def base(noisy: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        return base_output(bases.ours, torch.cat([noisy, beside], dim=1), sigma, conditions.text)

    @torch.inference_mode()
    def ours() -> Tensor:
        def velocity(x: Tensor, sigma: Tensor, step: int) -> Tensor:
            return guided_velocity(base, x, sigma, asked, batched=False)

        return euler(velocity, noise, sampling_schedule(_STEPS, 1.0))

    difference = (ours() - theirs()).abs().max() / ours().std()
    found = ratio(ours, theirs, repetitions, CPU, time.process_time)
    print(f"{_STEPS} steps of the base, {size}, {shape}, guided by text, diffusers / ours: {found}")
    print(f"  latents differ by at most {difference:.1e} of their spread")


def _with_text(text: Tensor) -> Conditions:
    nothing = torch.zeros(1)
    return Conditions(**{name: text if name == "text" else nothing for name in Conditions.__dataclass_fields__})


def outside_the_model(repetitions: int, seconds: float) -> None:
    """Shares of a whole render with the demo's model, of random weights: they do not change the time."""
    params = compose("demo")
    generator = LoadedGenerator(
        random_model("demo"), encoders_of(17, params.encode.resolutions), params.sampling, (), ""
    )
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, _timed(spent):
        request = request_of(Path(name), 256, 256, seconds)
        runs = []
        for _ in range(repetitions + 1):
            spent.clear()
            started = time.process_time()
            render(request, generator, Render(), lambda finished, total: None)
            runs.append({**spent, "whole": time.process_time() - started})
    print(
        f"a render of {seconds:g} s at 64 x 64, enlarged to 256 x 256, {params.sampling.num_steps} steps, no guidance:"
    )
    whole = float(np.median([run["whole"] for run in runs[1:]]))
    for part in ("model", "codec", "other"):
        shares = [_part(run, part) / run["whole"] for run in runs[1:]]
        print(f"  {part:<6} {np.median(shares):6.1%} ({min(shares):.1%} to {max(shares):.1%})")
    print(f"  whole  {whole:.2f} s, {repetitions} times; other: inputs, enlarging, H.264, AAC and the file")


def _part(run: dict[str, float], part: str) -> float:
    return run["whole"] - run["model"] - run["codec"] if part == "other" else run[part]


@contextmanager
def _timed(spent: dict[str, float]):
    """Adds up the time inside the model and the codec while it is open."""

    def timing(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return call(*given, **named)
            finally:
                spent[part] = spent.get(part, 0.0) + time.process_time() - started

        return timed

    kept = Generator.segment, CosineCodec.encode, CosineCodec.decode
    Generator.segment = timing("model", kept[0])
    CosineCodec.encode, CosineCodec.decode = timing("codec", kept[1]), timing("codec", kept[2])
    try:
        yield
    finally:
        Generator.segment, CosineCodec.encode, CosineCodec.decode = kept


def random_model(profile: str, patch_size: int = 1) -> OmniHumanTransformer:
    """A profile's blocks with random weights."""
    torch.manual_seed(0)
    config = replace(compose(profile).model, patch_size=patch_size)
    return OmniHumanTransformer(config, encoders_of(17, (4096,)).widths).eval()


def encoders_of(num_frames: int, resolutions: tuple[int, ...]) -> Encoders:
    """Those without weights."""
    return Encoders(
        video_codec="cosine", video_weights="", video_weights_sha256="", video_tile_pixels=0,
        video_tile_stride_pixels=0, speech_encoder="log_mel", speech_weights="", speech_weights_sha256="",
        text_encoder="hashed_words", text_weights="", text_weights_sha256="", fps=25.0, num_frames=num_frames,
        resolutions=resolutions, size_multiple=16, max_aspect=2.0, max_text_tokens=16,
        latent_channels=CosineCodec().num_channels, speech_width=LogMel.width, speech_layers=1,
        text_width=HashedWords(16).encode("").shape[1], num_keypoints=17,
    )  # fmt: skip


def request_of(folder: Path, width: int, height: int, seconds: float) -> RenderRequest:
    """A soft picture and noise as sound, written into a folder."""
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (9, 16, 3), np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(folder / "picture.png")
    sound = random.normal(0, 2000, round(16000 * seconds)).astype(np.int16)
    wavfile.write(folder / "sound.wav", 16000, sound)
    return RenderRequest(folder / "picture.png", folder / "out.mp4", folder / "sound.wav")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the video whose time is divided")
    given = parser.parse_args()
    print(f"{machine(CPU)}, load {os.getloadavg()[0]:.1f}")
    batched_against_sequential("small", given.repetitions)
    step_against_pipeline("small", Shape(1, 3, 8, 8, 32), given.repetitions)
    outside_the_model(given.repetitions, given.seconds)


if __name__ == "__main__":
    main()
