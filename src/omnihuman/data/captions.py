"""The step `caption`: one sentence for every clip, the sidecar's or one made here.

It stands between the scores and the shards and does not depend on the decisions, so that another threshold makes no
caption anew.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import pyarrow as pa

from omnihuman.config.schema.caption import Caption
from omnihuman.data.manifest import CAPTIONS, SOURCES_TABLE, ClipFile, clip_file, read_table, write_table
from omnihuman.encoders.captioner import BLIP, Blip
from omnihuman.encoders.weights import pinned_weights
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.storage.work import code_key, content_key, held_work_folder

SCORERS = ("face_size", "num_faces", "motion", "speech_presence", "brightness")
"""What a template looks at, where it was measured."""
SCORE_COLUMNS = ("clip_id", "scorer", "value", "status")
SHOTS = (
    (0.45, "a close-up"),
    (0.22, "a head-and-shoulders shot"),
    (0.1, "a half-body shot"),
    (0.0, "a full-body shot"),
)
"""By the least height of the face over the picture's."""
MANY_FACES, SPEECH, DARK = 1.5, 0.3, 0.2
MOVEMENTS = ((0.06, "moving a lot"), (0.01, "moving a little"), (0.0, "hardly moving"))
"""By the least motion, in picture diagonals a second."""
CLIPS_PER_CHUNK = 16
KEPT = pa.schema([(name, pa.string()) for name in ("clip_id", "source_id", "caption")])
"""Of finished captions; by the source a takedown finds them."""
FPS = 25.0


@dataclass(frozen=True)
class _Made:
    caption: str
    status: str = "ok"
    error: str = ""


def caption(config: Caption, sources: Path, clips: Path, scores: Path, captions: Path) -> None:
    """Writes the table of captions, a row for each clip that can be used.

    Finished captions of a network outlive a killed call. One that failed is a row without a caption that says why, and
    is tried again by the next call.

    Args:
        sources: folder with sources.parquet.
        clips, scores: Parquet files of the steps before.
        captions: output, Parquet.

    Raises:
        UserError: the network's weights are missing or not the pinned ones.
    """
    origin = read_table(sources / SOURCES_TABLE)[["source_id", "path", "keypoints_path", "caption"]]
    table = read_table(clips).query("status == 'ok'").merge(origin, on="source_id")
    open_clips = table[table["caption"] == ""]
    if config.method == "template":
        said = templates(read_table(scores, SCORE_COLUMNS), open_clips["clip_id"])
        made = {clip_id: _Made(text) for clip_id, text in said.items()}
    elif config.method == "blip":
        made = _by_network(config, [clip_file(row, sources) for row in open_clips.to_dict("records")])
    else:
        made = {clip_id: _Made("", "na", "the sidecar has none") for clip_id in open_clips["clip_id"]}
    weights = config.weights_sha256 if config.method == "blip" else ""
    rows = []
    for clip_id, stated in zip(table["clip_id"], table["caption"], strict=True):
        one = _Made(stated) if stated else made[clip_id]
        by = (
            {"origin": "sidecar", "weights_sha256": ""}
            if stated
            else {"origin": config.method, "weights_sha256": weights}
        )
        rows.append({"clip_id": clip_id, **vars(one), **by})
    write_table(rows, CAPTIONS, captions)


def templates(scores: pd.DataFrame, clip_ids: Iterable[str]) -> dict[str, str]:
    """A sentence of each clip from its scores; what was not measured is not spoken of."""
    wanted = scores[(scores["status"] == "ok") & scores["scorer"].isin(SCORERS)]
    values: dict[str, dict[str, float]] = {clip_id: {} for clip_id in clip_ids}
    for clip_id, scorer, value in wanted[["clip_id", "scorer", "value"]].itertuples(index=False):
        if clip_id in values:
            values[clip_id][scorer] = value
    return {clip_id: describe(found) for clip_id, found in values.items()}


def describe(found: dict[str, float]) -> str:
    """One sentence without a full stop, like `a half-body shot of a person, moving a little, with speech`."""
    face = found.get("face_size", 0.0)
    if face > 0:
        shot = next(words for least, words in SHOTS if face > least)
        parts = [f"{shot} of {'several people' if found.get('num_faces', 1.0) >= MANY_FACES else 'a person'}"]
    else:
        parts = ["a shot without a visible face"]
    if "motion" in found:
        parts.append(next(words for least, words in MOVEMENTS if found["motion"] >= least))
    if found.get("brightness", 1.0) < DARK:
        parts.append("in the dark")
    if found.get("speech_presence", 0.0) >= SPEECH:
        parts.append("with speech")
    return ", ".join(parts)


def _by_network(config: Caption, jobs: list[ClipFile]) -> dict[str, _Made]:
    """What the network says of each clip; what it said before a kill is kept."""
    pinned_weights(config.weights, BLIP, config.weights_sha256)
    key = content_key(
        weights=config.weights_sha256,
        max_tokens=config.max_tokens,
        short_side_pixels=config.short_side_pixels,
        code=code_key(
            "data/captions.py",
            "encoders/captioner.py",
            "encoders/weights.py",
            "media/seeking.py",
            "media/video.py",
        ),
    )
    with held_work_folder(key) as folder:
        made = {clip_id: _Made(text) for clip_id, text in _kept(folder)}
        limits = Limits(config.deadline_seconds, config.memory_megabytes)
        todo = [job for job in jobs if job.clip_id not in made]
        fresh: dict[str, tuple[str, str]] = {}
        for outcome in run_guarded(partial(_caption_clip, config), todo, limits, "caption"):
            job = todo[outcome.index]
            made[job.clip_id] = _Made(outcome.value or "", outcome.status, outcome.error)
            if outcome.status == "ok":
                fresh[job.clip_id] = job.source_id, outcome.value or ""
            if len(fresh) == CLIPS_PER_CHUNK or (fresh and outcome.index == len(todo) - 1):
                _keep(folder, fresh)
                fresh = {}
    return made


def _caption_clip(config: Caption, job: ClipFile) -> str:
    """Shows the frame in the middle to the network; runs inside a guarded worker."""
    middle = (job.start_seconds + job.end_seconds) / 2
    end = min(job.end_seconds, middle + 1 / FPS)
    frames = read_frames(
        job.path, fps=FPS, short_side_pixels=config.short_side_pixels, start_seconds=middle, end_seconds=end
    )
    return _blip(config.weights, config.weights_sha256, config.max_tokens).caption(frames.pixels[0])


@cache
def _blip(weights: str, sha256: str, max_tokens: int) -> Blip:
    return Blip(pinned_weights(weights, BLIP, sha256), max_tokens)


def _kept(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.parquet")):
        yield from read_table(path)[["clip_id", "caption"]].itertuples(index=False, name=None)


def _keep(folder: Path, made: dict[str, tuple[str, str]]) -> None:
    """Keeps source and caption by clip."""
    rows = [
        {"clip_id": clip_id, "source_id": source_id, "caption": text} for clip_id, (source_id, text) in made.items()
    ]
    write_table(rows, KEPT, folder / f"{content_key(clips=sorted(made))}.parquet")
