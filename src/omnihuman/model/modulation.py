"""adaLN: normalised tokens are shifted, scaled and gated by the level of noise, each token by its own.

R distinct levels of noise: the sigma of each sample, and 0 for its clean tokens (reference and motion frames).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Levels:
    """Which of R levels of noise each of N tokens has."""

    embedded: Tensor
    """[R, D], SiLU of the embedded sigmas."""
    chosen: Tensor | None
    """[N, R], one 1 in each row; None where R runs of N / R tokens follow one another. As a product of matrices a
    choice has a fast gradient; indexing would add the gradients of thousands of tokens up one after the other."""

    def of_tokens(self, values: Tensor) -> Tensor:
        """[R, X] per level to [N, X] per token, or to [R, 1, X] where equal runs share theirs."""
        return values[:, None] if self.chosen is None else self.chosen.to(values.dtype) @ values


class Modulation(nn.Module):
    """A linear map from the embedded level to (shift, scale, gate), once or twice; independent of it at first."""

    def __init__(self, width: int, num_chunks: int) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        self.linear = nn.Linear(width, num_chunks * width)
        nn.init.zeros_(self.linear.weight)
        # Shifts and scales begin neutral, every third chunk, a gate, begins open.
        with torch.no_grad():
            self.linear.bias.copy_((torch.arange(num_chunks) % 3 == 2).float().repeat_interleave(width))

    def forward(self, levels: Levels) -> tuple[Tensor, ...]:
        """Chunks [N, D] or [R, 1, D], see `Levels.of_tokens`."""
        return levels.of_tokens(self.linear(levels.embedded)).chunk(self.num_chunks, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm of [N, D] without parameters, then an affine map given from outside, [N, D] or [R, 1, D]."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(shift, _runs(normed, shift), 1 + scale).view_as(x)


def gated(x: Tensor, gate: Tensor, update: Tensor) -> Tensor:
    """x plus its update [N, D] times a gate [N, D] or [R, 1, D]."""
    return torch.addcmul(_runs(x, gate), gate, _runs(update, gate)).view_as(x)


def _runs(x: Tensor, values: Tensor) -> Tensor:
    """[N, D] as [R, N / R, D] where the values are per run."""
    return x if values.dim() == 2 else x.unflatten(0, (len(values), -1))
