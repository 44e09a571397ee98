"""Loss on triples (clip, sigma, noise) that never change, by noise level and by subset of conditions.

MLPerf's image task knows its quality from this alone: fixed levels i / 8, and the mean of their means. A triple depends
on the clip's name and on nothing of the run: runs of other seeds, recipes and numbers of ranks are held against the
same ones, and a curve moves only because the weights do.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from omnihuman.batch import Pack, TrainingBatch
from omnihuman.conditions.assembly import ActiveConditions, assemble, join_conditions
from omnihuman.conditions.windows import choose_reference, window_inputs
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Activation, Training
from omnihuman.data.manifest import one_row_a_clip, read_table
from omnihuman.data.shard_reading import ShardReader
from omnihuman.data.shards import EncodedClip, Encoders
from omnihuman.data.speech_features import with_speech
from omnihuman.keyed_random import generator, uniform
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.evaluating import evaluating
from omnihuman.training.module import StageModule, sample_losses
from omnihuman.training.place import Place
from omnihuman.training.progress import EverySteps
from omnihuman.training.ranks import Ranks

log = logging.getLogger(__name__)
SIGMAS = tuple(level / 8 for level in range(1, 9))

Weights = Mapping[str, Callable[[OmniHumanTransformer], AbstractContextManager[Any]]]
"""What follows `validation` in the metrics' names, to a context inside which the model holds those weights."""
RAW: Weights = {"": nullcontext}


@dataclass(frozen=True)
class ValidationClip:
    """One clip of the set."""

    clip_id: str
    shard: str
    eligible: frozenset[str]
    """Of audio and pose."""


@dataclass(frozen=True)
class ValidationSet:
    """The clips whose triples are measured."""

    clips: tuple[ValidationClip, ...]
    held_out: bool
    """False where the data has no test split, so that these clips are trained on as well."""

    def of_shards(self) -> dict[str, list[str]]:
        """The clips of each shard."""
        shards: dict[str, list[str]] = {}
        for clip in self.clips:
            shards.setdefault(clip.shard, []).append(clip.clip_id)
        return shards


def condition_subsets(activate: Activation) -> dict[str, tuple[str, ...]]:
    """What is on beside text, by the subset's name: each has one condition more, as far as the stage knows them."""
    known = tuple(name for name in ("reference", "audio", "pose") if getattr(activate, name) > 0)
    return {"_".join(("text", *known[:count])): known[:count] for count in range(len(known) + 1)}


def validation_set(encoded: Path, count: int, activate: Activation) -> ValidationSet:
    """Up to `count` clips of the test split, or of the training split where that is empty; always the same.

    Clips that may carry everything the stage knows come first: where there are enough of them, the subsets are
    measured on the same clips and differ by their conditions alone.
    """
    table = one_row_a_clip(read_table(encoded / "samples.parquet"))
    table = table[table["status"] == "ok"]
    test = table[table["split"] == "test"]
    rows = (table if test.empty else test).to_dict("records")
    wanted = [name for name in ("audio", "pose") if getattr(activate, name) > 0]
    rows.sort(key=lambda row: (-sum(bool(row[f"{n}_eligible"]) for n in wanted), uniform("validation", row["clip_id"])))
    clips = tuple(
        ValidationClip(row["clip_id"], row["shard"], frozenset(n for n in ("audio", "pose") if row[f"{n}_eligible"]))
        for row in rows[:count]
    )
    return ValidationSet(clips, held_out=not test.empty)


def fixed_triples(clip: EncodedClip, clip_id: str, on: tuple[str, ...], max_text_tokens: int) -> TrainingBatch:
    """One window of a clip at every level, each with its own noise; text and the conditions in `on` act."""
    random = generator("validation", clip_id)
    window = int(random.integers(len(clip.starts)))
    reference = choose_reference(clip, window, random)
    active = ActiveConditions(True, "reference" in on, "audio" in on, "pose" in on, motion=False)
    conditions = assemble(window_inputs(clip, window, reference, clip.text), active, max_text_tokens)
    latents = torch.from_numpy(clip.latents[window]).float().expand(len(SIGMAS), -1, -1, -1, -1)
    noise = torch.from_numpy(random.standard_normal(latents.shape, dtype="float32"))
    return TrainingBatch(latents, noise, torch.tensor(SIGMAS), join_conditions([conditions] * len(SIGMAS)))


@dataclass(frozen=True)
class TripleSource:
    """Where the clips lie, on disk or in S3, and what made them."""

    shards: ShardReader
    encoders: Encoders

    def triples(self, clip: ValidationClip, on: tuple[str, ...]) -> TrainingBatch:
        """See `fixed_triples`."""
        read = with_speech(self.shards.clip(clip.shard, clip.clip_id), self.encoders, needed="audio" in on)
        return fixed_triples(read, clip.clip_id, on, self.encoders.max_text_tokens)


def turns(count: int, ranks: Ranks) -> Iterator[tuple[int, bool]]:
    """This rank's share of `count` things, and whether each counts.

    Each rank has equally many, and at each turn all have one of the same kind: where weights are divided, every pass
    through the network waits for all ranks.
    """
    for turn in range(-(-count // ranks.size)):
        place = turn * ranks.size + ranks.rank
        yield place % count, place < count


def validation_losses(
    losses: Callable[[Pack], Tensor],
    clips: ValidationSet,
    subsets: Mapping[str, tuple[str, ...]],
    source: TripleSource,
    ranks: Ranks,
) -> dict[str, float]:
    """Means over clips as `text_reference/sigma_0.125`, and the mean of these as `text_reference/mean`.

    Each number is bit by bit the same whatever the number of ranks: a pass always takes one clip with its levels, every
    rank leaves zeros where another has measured, and only then are means taken.

    Args:
        losses: of the samples of a pack.
        subsets: see `condition_subsets`; one for which no clip is eligible is left out.

    Raises:
        UserError: a clip cannot be read, on all ranks alike: none waits in a pass for one that does not come.
    """
    figures: dict[str, float] = {}
    for name, on in subsets.items():
        fit = [clip for clip in clips.clips if {"audio", "pose"} & set(on) <= clip.eligible]
        table = torch.zeros(len(fit), len(SIGMAS), dtype=torch.float64)
        for place, counts in turns(len(fit), ranks):
            triples = ranks.together(lambda clip=fit[place], on=on: source.triples(clip, on))
            measured = losses((triples,)).double().cpu()
            if counts:
                table[place] = measured
        if fit:
            total = torch.tensor(ranks.sum(*table.flatten().tolist()), dtype=torch.float64)
            means = total.reshape(table.shape).mean(dim=0).tolist()
            figures |= {f"{name}/sigma_{sigma:.3f}": mean for sigma, mean in zip(SIGMAS, means, strict=True)}
            figures[f"{name}/mean"] = sum(means) / len(means)
    return figures


class Validation(EverySteps):
    """Reports the losses of the fixed triples, weighted as in training: small levels would else be most of a mean."""

    def __init__(
        self,
        config: Training,
        num_steps: int,
        clips: ValidationSet,
        subsets: Mapping[str, tuple[str, ...]],
        source: TripleSource,
        diffusion: Diffusion,
        place: Place,
        weights: Weights = RAW,
    ) -> None:
        super().__init__(config.validate_every_steps, num_steps)
        self._clips, self._subsets, self._source = clips, subsets, source
        self._diffusion, self._place, self._weights = diffusion, place, weights
        if not clips.held_out:
            log.warning("no clip is held out: the loss by noise level is that of clips that are trained on")

    def after_step(self, trainer: pl.Trainer, module: StageModule, step: int) -> None:
        """Measures each set of weights."""
        device = module.device

        def losses(pack: Pack) -> Tensor:
            return sample_losses(module.model, module.transfer_batch_to_device(pack, device, 0), self._diffusion)

        ranks = self._place.ranks
        kind = "validation" if self._clips.held_out else "validation_seen"
        for suffix, use in self._weights.items():
            with use(module.model), evaluating(module.model), trainer.precision_plugin.forward_context():
                figures = validation_losses(losses, self._clips, self._subsets, self._source, ranks)
            if self._place.report:
                self._place.report(step, {f"{kind}{suffix}/{name}": value for name, value in figures.items()})
