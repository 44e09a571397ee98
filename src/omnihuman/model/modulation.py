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
    """[N, R], one 1 in each row; None where R = 1. As a product of matrices a choice has a fast gradient; indexing
    would add the gradients of thousands of tokens up one after the other."""

    def of_tokens(self, values: Tensor) -> Tensor:
        """[R, X] per level to [N, X] per token, or [1, X] where all tokens share one level."""
        return values if self.chosen is None else self.chosen.to(values.dtype) @ values


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
        """Chunks [N, D], or [1, D] where all tokens share one level."""
        return levels.of_tokens(self.linear(levels.embedded)).chunk(self.num_chunks, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then an affine map given from outside."""
    return torch.addcmul(shift, functional.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)
