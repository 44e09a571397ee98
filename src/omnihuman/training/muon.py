"""Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) in single precision.

torch.optim.Muon iterates in bfloat16 and matrix by matrix: on a processor without bfloat16 instructions its step took
four times as long as forward and backward together (docs/benchmarks.md).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; steep at zero, so that small singular values rise within few rounds."""
_ROUNDS = 5


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices [N, rows, columns] with their singular values brought near 1 (between about 0.7 and 1.2)."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose steps are orthogonal matrices, with decoupled weight decay."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step; matrices of one shape are turned together."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    of_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in of_shape.items():
                turned = orthogonalized(torch.stack([self._direction(p, group["momentum"]) for p in parameters]))
                length = group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, turned, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-length)
        return loss

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        gradient = parameter.grad
        assert gradient is not None
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum).float()
