"""Which parameters a stage trains, and how many."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from omnihuman.errors import UserError

GROUPS = {
    "base": ("base.",),
    "text": ("base.text_embedder.",),
    "audio": ("audio_condition.", "audio_attention.", "audio_stream."),
    "pose": ("pose_condition.", "pose_embedder."),
}
"""How the names of each group's parameters begin; `base` is the whole of an open base, with its text."""
UNCHANGED = "unchanged.safetensors"
"""In a checkpoint: the tensors that the stage leaves as they are, where its other files may hold them rounded."""


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters."""

    frozen: int
    trainable: int

    def __str__(self) -> str:
        """For people."""
        return f"{self.trainable:,} parameters are trained, {self.frozen:,} are frozen"


def freeze(model: nn.Module, groups: Sequence[str], stage: str) -> ParameterCounts:
    """Freezes exactly the parameters of `groups` and counts; all others are trained.

    Args:
        groups: names of `GROUPS`, or how names of parameters begin, e.g. `base.dual_blocks.0.`
        stage: for the message.

    Raises:
        UserError: a group names no parameter, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    prefixes = {group: GROUPS.get(group, (group,)) for group in groups}
    for group, begins in prefixes.items():
        if not any(name.startswith(begins) for name in parameters):
            raise UserError(
                f"stages.{stage}.frozen holds {group!r}: no parameter's name begins so; name {', '.join(GROUPS)} or a"
                f" prefix, e.g. {next(iter(parameters))}"
            )
    all_begins = tuple(begin for begins in prefixes.values() for begin in begins)
    for name, parameter in parameters.items():
        parameter.requires_grad_(not name.startswith(all_begins))
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    if not trainable:
        raise UserError(f"stages.{stage}.frozen is {', '.join(groups)}: nothing is left to train, leave a group out")
    return ParameterCounts(sum(p.numel() for p in parameters.values()) - trainable, trainable)


def unchanged_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What no step changes, as it is: frozen parameters, and buffers."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in trained}
