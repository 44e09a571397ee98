"""The optimizers of a stage."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from omnihuman.config.schema.stage import Training
from omnihuman.training.muon import Muon

_MUON_TIMES = 10.0
"""How many times AdamW's learning rate Muon's steps take: those are orthogonal matrices, of norm one per row."""


def make_optimizer(model: nn.Module, config: Training, learning_rate: float) -> torch.optim.Optimizer:
    """`adamw`, or `muon` for the matrices inside the blocks with AdamW for all other parameters.

    Muon takes steps that move a matrix alike in all directions, so that what is rare in the
    gradient is learned as fast as what dominates it. Those of modulation see one vector a sample: AdamW takes them.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    by_muon = [name for name, p in parameters.items() if config.optimizer == "muon" and _inside_block(name, p)]
    rest = [parameter for name, parameter in parameters.items() if name not in by_muon]
    groups = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99))
    if not by_muon:
        return adamw
    matrices = [parameters[name] for name in by_muon]
    return JoinedOptimizer(Muon(matrices, lr=_MUON_TIMES * learning_rate, weight_decay=config.weight_decay), adamw)


def _inside_block(name: str, parameter: nn.Parameter) -> bool:
    in_block = "blocks." in name or name.startswith("audio_attention.")
    return in_block and "modulation" not in name and parameter.dim() == 2


class JoinedOptimizer(torch.optim.Optimizer):
    """Several optimizers, each with parameters of its own, that step, save and load as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts: tuple[torch.optim.Optimizer, ...] = ()
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parts' own groups, also after a part has loaded others."""
        return [group for part in self.parts for group in part.param_groups]

    @param_groups.setter
    def param_groups(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, _: list[dict[str, Any]]
    ) -> None:
        """The base class begins with none."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of every part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parts' states in their order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
