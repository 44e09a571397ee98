"""What looks at the weights of a stage and changes nothing, as callbacks."""

from functools import partial

import lightning.pytorch as pl

from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage, Training
from omnihuman.data.shard_reading import ShardReader, place_of_shards
from omnihuman.data.shards import Encoders
from omnihuman.training.averaged import average_in_place
from omnihuman.training.ema import WeightAverage
from omnihuman.training.place import Place
from omnihuman.training.probes import Probes
from omnihuman.training.validation import RAW, TripleSource, Validation, condition_subsets, validation_set


def insight(
    stage: Stage, training: Training, diffusion: Diffusion, place: Place, average: WeightAverage | None
) -> list[pl.Callback]:
    """Validation and probes, the same on every rank; they come after whatever changes weights at the end of a step.

    The average, where there is one, is measured beside the weights.

    Raises:
        UserError: shards of the validation clips are missing or of another codec.
    """
    watching: list[pl.Callback] = []
    if training.validate_every_steps:
        clips = validation_set(place.encoded, training.validation_clips, stage.activate)
        subsets = condition_subsets(stage.activate)
        encoders = Encoders.load(place.encoded / "encoders.json")
        shards = ShardReader(place_of_shards(place.encoded))
        shards.check(clips.of_shards(), encoders)
        source = TripleSource(shards, encoders)
        weights = dict(RAW)
        if average:
            weights["_ema"] = partial(average_in_place, average, place.ranks)
        watching.append(Validation(training, stage.steps, clips, subsets, source, diffusion, place, weights))
    if training.probe_every_steps and place.probe:
        watching.append(Probes(place.probe, training.probe_every_steps, stage.steps, place.work, place.report))
    return watching
