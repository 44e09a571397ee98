"""A small SyncNet of the project's own: gathers clips, trains, compares on people held out, saves.

It stands outside the graph, because its clips are those that the policy lets train sound, and the scores on which that
rests may then come from the network itself.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from omnihuman.config.schema.score import Score
from omnihuman.data.manifest import SOURCES_TABLE, ClipFile, clip_file, read_table
from omnihuman.data.scorers.lip_sync import hindrance
from omnihuman.data.scorers.small_syncnet import FPS, lag_similarities, mouths_of
from omnihuman.data.scorers.tracked_lip_sync import stand_out
from omnihuman.data.scoring import read_clip
from omnihuman.data.syncnet_training import Speaker, fit
from omnihuman.data.trained_networks import note_network
from omnihuman.encoders.small_syncnet import (
    SmallSyncNet,
    TrainedOn,
    cepstra_of,
    embed_pictures,
    embed_sound,
    save_small_syncnet,
)
from omnihuman.errors import UserError
from omnihuman.media.worker import Limits, run_guarded

log = logging.getLogger(__name__)

SHORTEST_FRAMES = 45
SHIFTS = (-12, -10, -8, 8, 10, 12)
"""By how many frames a held-out clip's sound is moved."""
NUM_SWAPS = 3
LEAST_PEOPLE = 2
NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """Values of the scorer for clips of people who were not trained on."""

    identities: list[str]
    own: list[float]
    others: list[list[float]]
    """Of each clip with shifted sound and with that of other people."""
    offsets: list[int]

    def auc(self) -> tuple[float, float, float]:
        """Area under the curve over all clips, and its 95% bootstrap over people; NaN where there are too few."""
        people = sorted(set(self.identities))
        if len(people) < LEAST_PEOPLE:
            return float("nan"), float("nan"), float("nan")
        owner = np.array([people.index(identity) for identity in self.identities])
        won = np.array([[_wins(a, other) for other in self.others] for a in self.own])
        pairs = np.array([[len(other) for other in self.others]] * len(self.own))
        random, drawn = np.random.default_rng(0), []
        for _ in range(NUM_RESAMPLES):
            weight = np.bincount(random.integers(len(people), size=len(people)), minlength=len(people))[owner]
            drawn.append((weight @ won @ weight) / (weight @ pairs @ weight))
        low, high = np.percentile(drawn, [2.5, 97.5])
        return float(won.sum() / pairs.sum()), float(low), float(high)


def train_syncnet(
    config: Score, tables: tuple[Path, Path, Path], output: Path, steps: int, seed: int, max_clips: int
) -> TrainedOn:
    """Trains on the clips that may train sound, and saves the network with what it was trained on.

    Args:
        config: at which size clips are decoded, and the limits on that.
        tables: folder of sources, and the Parquet files of clips and decisions.
        max_clips: of each split; where there are more, they are drawn.

    Raises:
        UserError: too few clips may train sound.
    """
    chosen = _eligible(*tables)
    parts = {}
    for split in ("train", "test"):
        rows = chosen[chosen["split"] == split]
        rows = rows.sample(min(max_clips, len(rows)), random_state=seed).sort_values("clip_id")
        parts[split] = _gather(config, tables[0], rows, split)
    speakers = parts["train"]
    if len({speaker.identity for speaker in speakers}) < LEAST_PEOPLE:
        raise UserError(
            f"{len(speakers)} clips of the training split show somebody who may train sound, of fewer than"
            f" {LEAST_PEOPLE} people: see reports/funnel.html for why, loosen conf/policy or add videos"
        )
    network = fit(speakers, steps, seed)
    comparison = compare_held_out(network, parts["test"])
    area, low, high = comparison.auc()
    told = TrainedOn(
        num_clips=len(speakers),
        num_people=len({speaker.identity for speaker in speakers}),
        licences=tuple(sorted({speaker.licence for speaker in speakers})),
        source_ids=tuple(sorted({speaker.source_id for speaker in speakers})),
        steps=steps,
        seed=seed,
        auc=area,
        auc_low=low,
        auc_high=high,
    )
    save_small_syncnet(network, told, output)
    note_network(output)
    near = np.mean(np.abs(comparison.offsets) <= 2) if comparison.offsets else float("nan")
    log.info(
        "%s; %d clips of %d people held out: AUC %.3f (%.2f to %.2f), offset within 2 frames in %.0f%%",
        *(told.label(), len(comparison.own), len(set(comparison.identities)), area, low, high, 100 * near),
    )
    return told


def compare_held_out(network: SmallSyncNet, speakers: list[Speaker]) -> Comparison:
    """The scorer's value for each clip with its own, with shifted and with other people's sound, at equal length."""
    seen = [embed_pictures(network, speaker.mouths) for speaker in speakers]
    heard = [embed_sound(network, speaker.cepstra) for speaker in speakers]
    found = Comparison([], [], [], [])
    margin = max(SHIFTS)
    for index, (speaker, pictures, sounds) in enumerate(zip(speakers, seen, heard, strict=True)):
        length = len(pictures) - margin
        value, offset = stand_out(lag_similarities(pictures[:length], sounds[:length]))
        others = []
        for shift in SHIFTS:
            first, at = max(0, -shift), max(0, shift)
            moved = lag_similarities(pictures[first : first + length], sounds[at : at + length])
            others.append(stand_out(moved)[0])
        strangers = [i for i, other in enumerate(speakers) if other.identity != speaker.identity]
        for turn in range(min(NUM_SWAPS, len(strangers))):
            other = heard[strangers[(index + turn) % len(strangers)]]
            both = min(length, len(other))
            others.append(stand_out(lag_similarities(pictures[:both], other[:both]))[0])
        found.identities.append(speaker.identity)
        found.own.append(value)
        found.others.append(others)
        found.offsets.append(offset)
    return found


def _eligible(sources: Path, clips: Path, decisions: Path) -> pd.DataFrame:
    decided = read_table(decisions)
    audio = decided[(decided["modality"] == "audio") & decided["eligible"]]
    table = read_table(clips).merge(audio[["clip_id"]], on="clip_id")
    return table.merge(read_table(sources / SOURCES_TABLE).drop(columns=["status", "error"]), on="source_id")


def _gather(config: Score, sources: Path, rows: pd.DataFrame, split: str) -> list[Speaker]:
    """Those clips that show a mouth and have sound; the others are left out with a count."""
    records = rows.to_dict("records")
    limits = Limits(config.deadline_seconds, config.memory_megabytes, config.clips_per_worker)
    jobs = [clip_file(record, sources) for record in records]
    found = []
    for outcome in run_guarded(partial(_mouth_and_sound, config), jobs, limits, f"look at clips of {split}"):
        if outcome.value is not None:
            record = records[outcome.index]
            found.append(Speaker(record["source_id"], record["identity"], record["licence"], *outcome.value))
    if len(found) < len(jobs):
        log.info(
            "%d of %d clips of %s are left out: no mouth, no sound or too short",
            len(jobs) - len(found),
            len(jobs),
            split,
        )
    return found


def _mouth_and_sound(config: Score, job: ClipFile) -> tuple[np.ndarray, np.ndarray] | None:
    """Runs inside a guarded worker."""
    torch.set_num_threads(1)
    content = read_clip(replace(config, fps=FPS), job)
    if content.sound is None or hindrance(content, SHORTEST_FRAMES):
        return None
    return mouths_of(content), cepstra_of(content.sound.samples, len(content.frames.pixels))


def _wins(own: float, others: list[float]) -> float:
    """Pairs in the right order; ties count half."""
    return float(np.mean((own > np.array(others)) + 0.5 * (own == np.array(others))) * len(others))
