"""Clips that another machine or program has encoded, in the layout that `encode` writes."""

import logging
from pathlib import Path

from omnihuman.config.schema.encode import Encode
from omnihuman.data.clip_encoding import EncodedSizes, window_starts
from omnihuman.data.encoding_plan import Plan, Row
from omnihuman.data.manifest import read_table
from omnihuman.data.shard_reading import ShardReader, place_of_shards
from omnihuman.data.shards import EncodedClip, Encoders
from omnihuman.errors import UserError

log = logging.getLogger(__name__)


def keep_imported(plan: Plan) -> int:
    """Keeps those clips of the folder `encode.imported` that the plan asks for, so that they are not encoded again.

    A clip is taken by its id where the caption is the same; its pose is taken as it was encoded there.

    Returns:
        How many were taken.

    Raises:
        UserError: the folder is none of encoded clips, was made by other encoders, or holds none of the plan's clips.
    """
    if not plan.config.imported:
        return 0
    folder = Path(plan.config.imported)
    _check_encoders(folder, plan.encoders)
    table = read_table(folder / "samples.parquet")
    there = table[(table["status"] == "ok") & (table["larger_area_pixels"] == 0)].set_index("clip_id")
    wanted = [row for row in plan.rows if row["clip_id"] in there.index]
    if not wanted:
        raise UserError(f"encode.imported: {folder} holds none of the {len(plan.rows)} clips; empty that key")
    same = [row for row in wanted if row["caption"] == there.at[row["clip_id"], "caption"]]
    missing = [row for row in same if not plan.kept.has(row) and _has_its_pose(plan, row)]
    reader = ShardReader(place_of_shards(folder))
    for row in missing:
        shard = str(there.at[row["clip_id"], "shard"])
        if Path(shard).name != shard:
            raise UserError(f"encode.imported: {folder} names the shard {shard!r}, which lies elsewhere")
        clip, smaller = reader.clip_at_all_sizes(shard, row["clip_id"])
        _check_clip(plan.config, row["clip_id"], clip)
        plan.kept.keep(row, EncodedSizes(clip, smaller))
    log.info("%d clips came from %s, %d there have another caption", len(missing), folder, len(wanted) - len(same))
    return len(missing)


def _has_its_pose(plan: Plan, row: Row) -> bool:
    """Whether the pose there is the one here; where a network finds it, nothing there tells which."""
    return bool(row["keypoints_path"]) or not plan.config.pose_weights


def _check_clip(config: Encode, clip_id: str, clip: EncodedClip) -> None:
    """Raises `UserError` where a clip has other windows, or other features of its sound, than are asked for."""
    num_frames = len(clip.keypoints)
    if clip.starts.tolist() != window_starts(num_frames, config):
        raise UserError(f"encode.imported: {clip_id} has other windows than encode.windows_per_clip asks for")
    if len(clip.speech) != (num_frames if config.store_speech else 0):
        raise UserError(f"encode.imported: the speech features of {clip_id} are not what encode.store_speech says")


def _check_encoders(folder: Path, expected: Encoders) -> None:
    try:
        made_by = Encoders.load(folder / "encoders.json")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"encode.imported: {folder}/encoders.json cannot be read: {error}") from error
    if made_by.fingerprint != expected.fingerprint:
        names = [name for name, value in vars(expected).items() if getattr(made_by, name) != value]
        raise UserError(
            f"encode.imported: {folder} was encoded otherwise than params.yaml says ({', '.join(names)}): set the same,"
            " or empty that key"
        )
