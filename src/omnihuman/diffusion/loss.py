"""The training objective."""

from torch import Tensor

_MOST_TIMES = 8.0
"""A latent position never counts as having changed more than this many times the mean."""


def flow_matching_loss(predicted: Tensor, target: Tensor, is_given: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of the velocity over the frames that were not given clean.

    Args:
        predicted, target: [B, C, T, h, w]
        is_given: bool [B, T], motion frames.
        weight: [B, 1, T, h, w], how much each latent position counts; None counts all alike.

    Returns:
        [B], one loss a sample.
    """
    error = (predicted.float() - target.float()).pow(2)
    per_frame = (error if weight is None else error * weight).mean(dim=(1, 3, 4))
    counted = (~is_given).to(error)
    return (per_frame * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def sigma_weight(sigma: Tensor, floor: float) -> Tensor:
    """[B]: below `floor` the error counts as that of the clean latent, else that of the velocity.

    The velocity's error is the clean latent's over sigma; without a floor the smallest levels would dominate.
    """
    return (sigma / sigma.clamp(min=floor)) ** 2


def change_weight(latents: Tensor, reference: Tensor, strength: float) -> Tensor:
    """[B, 1, T, h, w] of mean one: positions that differ from the reference picture count more.

    A mouth is a few positions of many; a model that only copies the picture is right about all the others.
    """
    change = (latents - reference[:, :, None]).pow(2).mean(dim=1, keepdim=True)
    times = change / change.mean(dim=(2, 3, 4), keepdim=True).clamp(min=1e-4)
    weight = 1.0 + strength * times.clamp(max=_MOST_TIMES)
    return weight / weight.mean(dim=(2, 3, 4), keepdim=True)
