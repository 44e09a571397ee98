"""The LightningModule: glue between the loss, which knows nothing of Lightning, and the optimizer."""

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from omnihuman.batch import ModelInput, Pack, TrainingBatch
from omnihuman.conditions.motion_frames import motion_mask
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Training
from omnihuman.diffusion.loss import change_weight, flow_matching_loss, sigma_weight
from omnihuman.diffusion.path import noisy_latents, velocity
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.loading import each_tensor
from omnihuman.training.optimizer import make_optimizer
from omnihuman.training.ranks import Ranks
from omnihuman.training.watch import LossWatch


def sample_losses(model: OmniHumanTransformer, pack: Pack, config: Diffusion) -> Tensor:
    """Weighted flow-matching loss [samples] of a pack, which goes through the network as one sequence."""
    noisy = [noisy_latents(part.latents, part.noise, part.sigma) for part in pack]
    inputs = [ModelInput(noise, part.sigma, part.conditions) for noise, part in zip(noisy, pack, strict=True)]
    predicted = model.forward_packed(inputs)
    return torch.cat([_part_losses(*pair, config) for pair in zip(predicted, pack, strict=True)])


def _part_losses(predicted: Tensor, part: TrainingBatch, config: Diffusion) -> Tensor:
    given = motion_mask(part.conditions.motion_on, part.latents.shape[2])
    weight = change_weight(part.latents, part.conditions.reference, config.change_strength)
    loss = flow_matching_loss(predicted, velocity(part.latents, part.noise), given, weight)
    return loss * sigma_weight(part.sigma, config.sigma_floor)


def learning_rate_share(step: int, num_steps: int, warmup_steps: int) -> float:
    """Linear warm-up to 1, then a cosine down to a twentieth at `num_steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress))


class StageModule(pl.LightningModule):
    """One training stage, on one rank.

    Args:
        watch: judges the loss of each step, and knows the clips of a micro-step.
        accumulate: micro-steps of a step.
    """

    def __init__(
        self,
        model: OmniHumanTransformer,
        config: Training,
        diffusion: Diffusion,
        learning_rate: float,
        num_steps: int,
        watch: LossWatch,
        ranks: Ranks | None = None,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        self.model = model
        self.losses: list[float] = []
        """Mean loss of every finished step, of a resumed run also of those before."""
        self.stop_wanted = False
        """Set by a signal to this rank."""
        self.stopping = False
        """Whether any rank was to stop when the step under way was computed; the same on all ranks."""
        self._config, self._diffusion, self._watch = config, diffusion, watch
        self._learning_rate, self._num_steps = learning_rate, num_steps
        self._ranks, self._accumulate = ranks or Ranks(), accumulate
        self._micro_losses: list[float] = []

    def training_step(self, batch: Pack, batch_idx: int) -> Tensor:
        """This rank's part of the step's mean loss, such that the mean over ranks is the gradient of the whole batch.

        Lightning divides by the number of micro-steps, and the reduction of gradients by that of ranks.
        """
        loss = sample_losses(self.model, batch, self._diffusion).sum() / self._config.global_batch_size
        self._micro_losses.append(loss.item())
        if len(self._micro_losses) == self._accumulate:
            self._finish(self._micro_losses)
            self._micro_losses = []
        return loss * self._accumulate * self._ranks.size

    def _finish(self, micro_losses: list[float]) -> None:
        """Before the weights change: one exchange between the ranks, and a look at the loss."""
        total, stopping = self._ranks.sum(sum(micro_losses), float(self.stop_wanted))
        self.stopping = stopping > 0
        self._watch.judge(self.losses, total, micro_losses)
        self.losses.append(total)
        recent = self.losses[-self._config.log_every_steps :]
        self.log("loss", sum(recent) / len(recent), batch_size=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A loss may be a number where its gradient is none. DeepSpeed's lie elsewhere; saving looks at its weights."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self._ranks.size == 1 and gradients and not torch.nn.utils.get_total_norm(gradients).isfinite():
            self._watch.judge_gradient(len(self.losses) - 1)

    def metrics(self, step: int) -> dict[str, float]:
        """Loss and learning rate of a finished step, which count from 1."""
        share = learning_rate_share(step - 1, self._num_steps, self._config.warmup_steps)
        return {"loss": self.losses[step - 1], "learning_rate": self._learning_rate * share}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning finds the end of a step by the number of micro-steps so far, which may have been others."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        num_batches = checkpoint["global_step"] * self._accumulate
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, num_batches))
            counts["completed"] -= 1  # it is saved before the last one counts as completed

    def configure_optimizers(self) -> Any:
        """See `optimizer.make_optimizer`."""
        optimizer = make_optimizer(self.model, self._config, self._learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_share(step, self._num_steps, self._config.warmup_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Pack, device: torch.device, dataloader_idx: int) -> Pack:
        """Moves the frozen dataclasses, which Lightning would try to change in place."""
        return tuple(each_tensor(part, lambda tensor: tensor.to(device, non_blocking=True)) for part in batch)
