"""The step `encode`: eligible clips become latents, sound features, keypoints and text embeddings in shards."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from omnihuman.data.clip_encoding import encode_clip
from omnihuman.data.encoding_plan import Plan, Row, Shard
from omnihuman.data.imported_clips import keep_imported
from omnihuman.data.manifest import SAMPLES, write_table
from omnihuman.data.shard_reading import Lengths, ShardReader, note_place
from omnihuman.data.shards import save_empty_text
from omnihuman.errors import UserError
from omnihuman.media.worker import RunGuarded, run_guarded
from omnihuman.storage.files import publish_folder
from omnihuman.storage.ranges import files_at
from omnihuman.storage.work import held


@dataclass(frozen=True)
class _Failure:
    status: str  # error | timeout
    error: str


def encode(plan: Plan, encoded: Path, run: RunGuarded = run_guarded) -> None:
    """Encodes every clip that may train at least text, into `encoded`.

    Finished clips outlive a killed call, and a call with more clips than the last one encodes the new ones only.
    Neither the number of workers nor a resume changes a byte.

    Args:
        encoded: output folder: samples.parquet, encoders.json, and shard-*.safetensors unless `encode.shards_at` names
            another place for them.
        run: where the clips are encoded.

    Raises:
        UserError: no clip could be encoded, or `encode.shards_at` or `encode.imported` cannot be used.
    """
    place = plan.config.shards_at
    if place and not place.startswith("s3://") and Path(place).absolute().is_relative_to(encoded.absolute()):
        raise UserError(f"encode.shards_at is {place}, which this step replaces: name another place, or leave it empty")
    with publish_folder(encoded) as folder:
        plan.encoders.save(folder / "encoders.json")
        save_empty_text(folder, plan.empty_text)
        if place:
            note_place(folder, place)
        rows = _encode_shards(plan, plan.shards(), place or folder, run, "encode")
        write_table(rows, SAMPLES, folder / "samples.parquet")
    if not any(row["status"] == "ok" for row in rows):
        raise UserError(f"none of {len(rows)} eligible clips could be encoded, the first because: {rows[0]['error']}")


def encode_part(plan: Plan, number: int, count: int, run: RunGuarded = run_guarded) -> tuple[int, int]:
    """Encodes every `count`-th shard from the `number`-th on, counted from 1, so that several machines share the work.

    Clips go to `$OMNIHUMAN_HOME` and shards to `config.shards_at`; `encode` then finds them there and only writes the
    table. One of the two must be seen by all machines.

    Returns:
        How many clips are encoded, and how many could not be.
    """
    shards = plan.shards()[number - 1 :: count]
    rows = _encode_shards(plan, shards, plan.config.shards_at or None, run, f"part {number}/{count}")
    good = {row["clip_id"] for row in rows if row["status"] == "ok"}
    return len(good), len({row["clip_id"] for row in rows} - good)


def lengths_at(place: str | Path, name: str) -> dict[str, Lengths]:
    """Of the clips that a shard holds; of none where it is missing or damaged, so that it is made again."""
    if files_at(place).size(name) is None:
        return {}
    try:
        return ShardReader(place).lengths(name)
    except UserError:
        return {}


def _encode_shards(
    plan: Plan, shards: list[Shard], place: str | Path | None, run: RunGuarded, progress: str
) -> list[dict]:
    """Encodes what is missing, brings each shard to its place, if any, and returns the rows of the sample table.

    One pool works on the clips of all shards, because each of its workers loads the encoders' weights; a shard is
    brought there as soon as its last clip is done.
    """
    keep_imported(plan)
    clips = plan.kept.key_of(row for shard in shards for row in shard.rows)
    rows: list[dict] = []
    with held(plan.kept.folder / "shards" / clips):
        there = {shard.name: lengths_at(place, shard.name) if place else {} for shard in shards}
        unfinished = [shard for shard in shards if any(row["clip_id"] not in there[shard.name] for row in shard.rows)]
        names = {shard.name for shard in unfinished}
        for shard in unfinished:
            if place and there[shard.name]:
                known = [row for row in shard.rows if row["clip_id"] in there[shard.name]]
                plan.kept.fetch(known, place, shard.name)
        missing = [row for shard in unfinished for row in shard.rows if not plan.kept.has(row)]
        asked, outcomes = {row["clip_id"] for row in missing}, _encode(plan, missing, run, progress)
        for shard in shards:
            failures: dict[str, _Failure] = {}
            if shard.name in names:
                failures = {
                    row["clip_id"]: failure
                    for row in shard.rows
                    if row["clip_id"] in asked and (failure := next(outcomes))
                }
                good = [row for row in shard.rows if row["clip_id"] not in failures]
                there[shard.name] = {row["clip_id"]: plan.kept.lengths(row) for row in good}
                if place:
                    _bring(plan, good, place, shard.name)
            for row in shard.rows:
                own = there[shard.name].get(row["clip_id"]), failures.get(row["clip_id"])
                rows += _sample_rows(plan, row, shard.name, *own)
    return rows


def _encode(plan: Plan, rows: list[Row], run: RunGuarded, progress: str) -> Iterator[_Failure | None]:
    """Encodes and keeps clips; yields of each in its turn what went wrong, which the next call tries again."""
    jobs = [plan.job(row) for row in rows]
    function = partial(encode_clip, plan.config, plan.devices)
    for outcome in run(function, jobs, plan.limits, progress) if jobs else ():
        if outcome.value is None:
            yield _Failure(outcome.status, outcome.error)
        else:
            plan.kept.keep(rows[outcome.index], outcome.value)
            yield None


def _bring(plan: Plan, rows: list[Row], place: str | Path, name: str) -> None:
    """Makes one shard of kept clips and brings it to its place."""
    with TemporaryDirectory(dir=plan.kept.folder) as folder:
        joined = Path(folder) / name
        plan.kept.join(rows, joined)
        files_at(place).put(name, joined)


def _sample_rows(plan: Plan, row: Row, shard: str, lengths: Lengths | None, failure: _Failure | None) -> list[dict]:
    """One for each size; of a clip that could not be encoded the first alone."""
    sizes = plan.sizes(row)
    common = {
        name: row[name] for name in ("clip_id", "identity", "split", "caption", "audio_eligible", "pose_eligible")
    }
    common |= {
        "shard": shard,
        "num_windows": lengths.num_windows if lengths else 0,
        "num_frames": lengths.num_frames if lengths else 0,
        "status": failure.status if failure else "ok",
        "error": failure.error if failure else "",
    }
    larger = [0, *(size.area_pixels for size in sizes)]
    rows = [common | asdict(size) | {"larger_area_pixels": area} for size, area in zip(sizes, larger, strict=False)]
    return rows if lengths else rows[:1]
