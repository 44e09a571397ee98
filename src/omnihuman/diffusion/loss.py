"""The training objective."""

from torch import Tensor


def flow_matching_loss(predicted: Tensor, target: Tensor, is_given: Tensor) -> Tensor:
    """Mean squared error of the velocity over the frames that were not given clean.

    Args:
        predicted, target: [B, C, T, h, w]
        is_given: bool [B, T], motion frames.

    Returns:
        [B], one loss a sample.
    """
    error = (predicted.float() - target.float()).pow(2).mean(dim=(1, 3, 4))
    counted = (~is_given).to(error)
    return (error * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
