"""What real sizes need: tokens and weights exactly, activations from what blocks and the VAE hold at one time.

With `--large WIDTHxHEIGHT` it renders five frames of that size instead, and prints this process's peak of memory.
"""

import argparse
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bases import CONFIGS, WIDTHS, make_input, make_omnihuman
from measure import LiveBytes, machine
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference.generator import LoadedGenerator
from omnihuman.inference.render import render
from omnihuman.model.omnihuman import OmniHumanTransformer
from render import encoders_of, random_model, request_of

CPU = torch.device("cpu")
SIZES = {"512 x 512": (512, 512), "1280 x 720": (1280, 720), "1920 x 1088": (1920, 1088), "4096 x 2304": (4096, 2304)}
NUM_LATENTS = 21
"""81 frames, the segment of the open systems of this kind."""


def needs_of_sizes() -> None:
    """Memory of the largest base with its conditions, in bfloat16, and of the published VAE in float32."""
    parameters, of_token = _num_parameters("2b"), _bytes_of_a_token()
    print(
        f"\n2.0B base with its conditions: {parameters / 1e9:.2f}B parameters, {2 * parameters / 2**30:.1f} GiB in"
        f" bfloat16, {4 * parameters / 2**30:.1f} GiB in float32; {NUM_LATENTS} latents and the reference\n"
        "tokens of a latent frame: width / 16 x height / 16; of a segment: those times 22\n"
        f"activations of one branch: tokens x {of_token / 2:.0f} numbers of two bytes, measured\n"
        "attention: 4 x tokens^2 x width operations in each of 36 blocks, of one branch and step\n"
        "VAE: what decoding one latent frame holds in float32, by running it on tensors without memory\n"
    )
    columns = ("size", "tokens a latent", "tokens a segment", "activations", "attention, PFLOP", "VAE", "VAE in tiles")
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for name, (width, height) in SIZES.items():
        tokens = width * height // 256
        in_all = tokens * (NUM_LATENTS + 1)
        attention = 4 * in_all**2 * CONFIGS["2b"].width * 36 / 1e15
        vae, tiled = _vae_bytes(width, height), _vae_bytes(256, 256)
        print(
            f"| {name} | {tokens:,} | {in_all:,} | {in_all * of_token / 2**30:.1f} GiB | {attention:.2f} |"
            f" {vae / 2**30:.1f} GiB | {tiled / 2**30:.1f} GiB |"
        )


def _num_parameters(size: str) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in OmniHumanTransformer(CONFIGS[size], WIDTHS[size]).parameters())


def _bytes_of_a_token() -> float:
    """What a token more adds to the peak of a forward pass of the 2B base, with one block of each kind."""
    config = replace(CONFIGS["2b"], num_dual_blocks=1, num_single_blocks=1, num_decoder_blocks=1)
    CONFIGS["2b, short"], WIDTHS["2b, short"] = config, WIDTHS["2b"]
    model = make_omnihuman("2b, short", CPU, torch.bfloat16).eval()
    peaks = []
    for side in (8, 16):
        given = make_input("2b, short", (3, side, side), [16], CPU, torch.bfloat16)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), LiveBytes() as live:
            model(given.noisy, given.sigma, given.conditions)
        peaks.append(live.peak)
    return (peaks[1] - peaks[0]) / (4 * (16 * 16 - 8 * 8) / 4)


def _vae_bytes(width: int, height: int) -> int:
    """Of decoding one latent frame after the first, in float32, with the cache that it needs."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    with torch.device("meta"), torch.inference_mode():
        vae = AutoencoderKLWan().eval()
        latent = torch.empty(1, 16, 1, height // 8, width // 8)
        cache: list[Any] = [None] * vae._cached_conv_counts["decoder"]
        with LiveBytes() as live:
            for number in range(3):
                vae.decoder(vae.post_quant_conv(latent), feat_cache=cache, feat_idx=[0], first_chunk=number == 0)
    return live.peak


def one_large_render(width: int, height: int) -> None:
    """Five frames at a real size by the smallest model, in patches of two; memory of this process alone."""
    encoders = encoders_of(5, (width * height,))
    generator = LoadedGenerator(random_model("tiny", 2), encoders, Sampling(num_steps=1, guidance_audio=1.0), (), "")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with tempfile.TemporaryDirectory() as name:
        request = request_of(Path(name), width, height, 0.2)
        started = time.perf_counter()
        made = render(request, generator, Render(upscale=1), lambda finished, total: None)
        spent, size = time.perf_counter() - started, request.output.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{made.num_frames} frames of {made.width} x {made.height}, one step: {spent:.0f} s, {size / 1000:.0f} kB; peak"
        f" {peak:.2f} GiB, of which {before:.2f} GiB before"
    )


def main() -> None:
    """Computes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", metavar="WIDTHxHEIGHT", help="render five frames at this size, and nothing else")
    given = parser.parse_args()
    print(f"{machine(CPU)}, load {os.getloadavg()[0]:.1f}")
    if given.large:
        one_large_render(*map(int, given.large.split("x")))
    else:
        needs_of_sizes()


if __name__ == "__main__":
    main()
