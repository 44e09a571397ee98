"""Rules of the stages that span several keys. Every message names the key, its value and the remedy."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise

from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.stage import Stage, Training

SHORTEST_WINDOW = 9
"""Frames of a segment that adds something to the five motion frames."""
SHORTEST_MIDSTREAM_WINDOW = 13
"""The same in mid-stream, where the first latent is left out and two cover eight motion frames."""
STRENGTH = ("text", "reference", "audio", "pose")
"""From the weakest condition to the strongest (OmniHuman-1, sec. 3.3)."""
_SIZES = ("one_size", "native")


def check_stages(stages: dict[str, Stage], training: Training, encode: Encode) -> Iterator[str]:
    """One line per rule that is broken."""
    if training.midstream_share > 0:
        yield from _check_midstream(stages, encode)
    yield from _check_parents(stages)
    yield from _check_activations(stages)
    yield from _check_phases(stages, encode)


def _check_parents(stages: dict[str, Stage]) -> Iterator[str]:
    roots = [name for name, stage in stages.items() if stage.parent is None]
    if stages and roots != [min(stages)]:
        yield f"stages: only {min(stages)} starts without a parent, but so do {', '.join(roots) or 'none'}; set parent"
    for name, stage in stages.items():
        if stage.parent is not None and stage.parent not in stages:
            yield f"stages.{name}.parent is {stage.parent}: no such stage, one of {', '.join(stages)}"
        elif name in ancestors(name, stages):
            yield f"stages.{name}.parent is {stage.parent}: the stages form a circle, set an earlier parent"
        if stage.parent is not None and stage.base:
            yield f"stages.{name}.base is {stage.base}: it starts from {stage.parent} already, set it on {min(stages)}"


def ancestors(name: str, stages: dict[str, Stage]) -> list[str]:
    """The stages that come before `name`, nearest first; ends at a circle."""
    line: list[str] = []
    parent = stages[name].parent
    while parent in stages and parent not in line:
        line.append(parent)
        parent = stages[parent].parent
    return line


def _check_activations(stages: dict[str, Stage]) -> Iterator[str]:
    for name, stage in stages.items():
        ratios = asdict(stage.activate)
        for weak, strong in pairwise(STRENGTH):
            if ratios[strong] > ratios[weak] and not stage.allow_stronger_more:
                yield (
                    f"stages.{name}.activate.{strong} is {ratios[strong]}: the stronger a condition, the lower its"
                    f" ratio (OmniHuman-1, sec. 3.3); set it to at most activate.{weak} ({ratios[weak]}), or"
                    f" stages.{name}.allow_stronger_more=true where that is what you want to try"
                )
        introduced = {modality for line in (name, *ancestors(name, stages)) for modality in stages[line].introduces}
        for modality in introduced - {"audio", "pose"}:
            yield f"stages.{name}.introduces holds {modality!r}: a stage introduces audio or pose"
        for modality in ("audio", "pose"):
            if ratios[modality] > 0 and modality not in introduced:
                yield (
                    f"stages.{name}.activate.{modality} is {ratios[modality]}: no stage up to this one introduces"
                    f" {modality}; set it to 0 or add {modality} to introduces"
                )


def _check_phases(stages: dict[str, Stage], encode: Encode) -> Iterator[str]:
    for name, stage in stages.items():
        if stage.batching.sizes not in _SIZES:
            yield f"stages.{name}.batching.sizes: unknown '{stage.batching.sizes}', expected one of {', '.join(_SIZES)}"
        total = sum(phase.share for phase in stage.phases.values())
        if stage.phases and abs(total - 1) > 1e-6:
            shares = " + ".join(f"{phase.share:g}" for phase in stage.phases.values())
            yield f"stages.{name}.phases: their shares are {shares} = {total:g} of the steps; let them add up to 1"
        for (one, before), (other, after) in pairwise(stage.phases.items()):
            for key in ("area_pixels", "num_frames"):
                small, large = getattr(before, key), getattr(after, key)
                if large is not None and (small is None or small > large):
                    yield (
                        f"stages.{name}.phases.{other}.{key} is {large}, below that of {one} before it"
                        f" ({small or 'no limit'}): phases go from low to high, swap them"
                    )
        for key, phase in stage.phases.items():
            if phase.area_pixels is not None and phase.area_pixels < min(encode.resolutions, default=0):
                yield (
                    f"stages.{name}.phases.{key}.area_pixels is {phase.area_pixels}: no clip is encoded so small, raise"
                    f" it or add to encode.resolutions ({list(encode.resolutions)})"
                )
            where = f"stages.{name}.phases.{key}.num_frames is {phase.num_frames}"
            if phase.num_frames is not None and (phase.num_frames - 1) % 4:
                yield f"{where}: the codec takes 4k + 1 frames, set {phase.num_frames // 4 * 4 + 1}"
            elif phase.num_frames is not None and 1 < phase.num_frames < SHORTEST_WINDOW:
                yield f"{where}: five are motion frames, set at least {SHORTEST_WINDOW}, or 1 for pictures"
            elif phase.num_frames is not None and phase.num_frames > encode.num_frames:
                yield f"{where}: windows were encoded with {encode.num_frames} (encode.num_frames), set at most that"


def _check_midstream(stages: dict[str, Stage], encode: Encode) -> Iterator[str]:
    lengths = {"encode.num_frames": encode.num_frames} | {
        f"stages.{name}.phases.{key}.num_frames": phase.num_frames
        for name, stage in stages.items()
        for key, phase in stage.phases.items()
        if phase.num_frames is not None and phase.num_frames > 1
    }
    for where, length in lengths.items():
        if length < SHORTEST_MIDSTREAM_WINDOW:
            least = f"samples in mid-stream need at least {SHORTEST_MIDSTREAM_WINDOW}"
            yield f"{where} is {length}: {least}; raise it, or set training.midstream_share=0"
