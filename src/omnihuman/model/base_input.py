"""Input of the bare base, as the published class takes it: to compare with it, and to run it without conditions."""

import torch
from torch import Tensor

from omnihuman.conditions.text import pack_text
from omnihuman.model.mmdit import MMDiT, Packed
from omnihuman.model.rope import Rotation, grid_rotation
from omnihuman.packed import Joint, Runs


def base_output(
    base: MMDiT, latents: Tensor, sigma: Tensor, text: Tensor, mask: Tensor | None = None, image: Tensor | None = None
) -> Tensor:
    """What the base predicts.

    Args:
        latents: [B, 2 C + 1, T, h, w]: noisy latents, condition latents, mask.
        sigma: [B], 1 is noise; the published class takes 1000 times as much.
        text: [B, L, text width]
        mask: bool [B, L], True at real tokens; None: all are.
        image: [B, I, image width], a picture's embeddings, if the base has a place for them.

    Returns:
        [B, C, T, h, w]
    """
    config, device = base.config, latents.device
    batch, _, num_latents, height, width = latents.shape
    grid = (num_latents, height // config.patch_size, width // config.patch_size)
    x = base.x_embedder(latents).flatten(2).transpose(1, 2)
    real_text, lengths = pack_text(text, text.new_ones(text.shape[:2], dtype=torch.bool) if mask is None else mask)
    y, text_runs = base.text_embedder(real_text), Runs.of(lengths, device)
    y_runs, text_places = text_runs, None
    if image is not None and base.image_embedder is not None:
        pictures = Joint.of(Runs.of([image.shape[1]] * batch, device), text_runs)
        y, y_runs = pictures.join(base.image_embedder(image).flatten(0, 1), y), pictures.both
        alone = torch.arange(image.shape[1], len(y), device=device)
        text_places = alone if pictures.y_places is None else pictures.y_places
    angles = grid_rotation(*grid, config.rope_axes, config.rope_theta, device)
    output = base(
        Packed(
            x=x.flatten(0, 1),
            y=y,
            x_runs=Runs.of([x.shape[1]] * batch, device),
            y_runs=y_runs,
            x_rotation=Rotation(*(a.repeat(batch, 1) for a in angles)),
            y_rotation=None,
            text_places=text_places,
            text_runs=text_runs,
            is_clean=None,
            sigma=sigma,
        )
    )
    return unpatchify(output.unflatten(0, (batch, -1)), grid, config.patch_size)


def unpatchify(tokens: Tensor, grid: tuple[int, int, int], patch: int) -> Tensor:
    """Values [B, T h' w', C patch^2] of a grid of tokens to [B, C, T, h, w]."""
    time, height, width = grid
    values = tokens.unflatten(1, grid).unflatten(-1, (-1, patch, patch)).permute(0, 4, 1, 2, 5, 3, 6)
    return values.reshape(len(tokens), -1, time, height * patch, width * patch)
