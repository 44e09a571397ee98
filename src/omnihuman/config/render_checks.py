"""Rules of how a video is sampled and its file written."""

from collections.abc import Iterator

from omnihuman.config.rules import LATENT_PIXELS, check_choices
from omnihuman.config.schema.evaluate import Render, Sampling

_SAMPLING = {
    "solver": ("euler", "heun", "adams_bashforth"),
    "guidance_annealing": ("constant", "linear", "cosine"),
    "precision": ("float32", "bfloat16"),
}
_RENDER = {"chaining": ("decoded_frames", "latent_stream"), "codec": ("h264", "hevc")}
_MAX_CRF, _MAX_FPS, _MAX_PIXELS_OF_A_SIDE = 51, 240, 16384  # the last is what libx264 takes


def check_render(render: Render) -> Iterator[str]:
    """What is wrong with it."""
    yield from check_choices("render", render, _RENDER)
    if render.chaining == "latent_stream" and render.keep_colour > 0:
        yield (
            "render.keep_colour acts on decoded motion frames, which render.chaining=latent_stream has not: set it to 0"
        )
    if not 0 <= render.crf <= _MAX_CRF:
        yield f"render.crf is {render.crf}: set it between 0 (best) and {_MAX_CRF}"
    if render.fps > _MAX_FPS:
        yield f"render.fps is {render.fps:g}: set at most {_MAX_FPS}, or 0 for the model's own"
    for key in ("width", "height"):
        value = getattr(render, key)
        if value % 2 or not 0 <= value <= _MAX_PIXELS_OF_A_SIDE:
            yield f"render.{key} is {value}: set an even number up to {_MAX_PIXELS_OF_A_SIDE}, or 0 for the picture's"
    if not render.label.isprintable():
        yield f"render.label is {render.label!r}: it is drawn as one line, leave out what cannot be printed"


def check_sampling(sampling: Sampling) -> Iterator[str]:
    """What is wrong with it, guidance that rises over the steps among it."""
    yield from check_choices("sampling", sampling, _SAMPLING)
    if sampling.vae_tile_pixels % (4 * LATENT_PIXELS):
        yield f"sampling.vae_tile_pixels is {sampling.vae_tile_pixels}: set a multiple of {4 * LATENT_PIXELS}, or 0"
    if sampling.shift <= 0:
        yield f"sampling.shift is {sampling.shift:g}: set it above 0, 1 for none"
    elif sampling.shift_by_tokens and sampling.shift != 1:
        yield f"sampling.shift is {sampling.shift:g}: sampling.shift_by_tokens sets it, leave it at 1"
    is_constant = sampling.guidance_annealing == "constant"
    end = 0.0 if is_constant else sampling.guidance_end
    for key in ("guidance_text", "guidance_audio"):
        if (first := getattr(sampling, key)) < end:
            yield (
                f"sampling.guidance_end is {end:g}: guidance must not rise over the steps, set it to at most"
                f" sampling.{key} ({first:g}), or sampling.guidance_annealing=constant"
            )
    last_text = sampling.guidance_text if is_constant else end
    if sampling.guidance_text_steps and last_text < 1:
        yield (
            f"sampling.guidance_text_steps is {sampling.guidance_text_steps}: from there on text has scale 1, which"
            f" must not lie above its scale before ({last_text:g}); set it to 0"
        )
