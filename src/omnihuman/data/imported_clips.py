"""Clips that another machine or program has encoded, in the layout that `encode` writes."""

import logging
from pathlib import Path

from omnihuman.data.encoding_plan import Plan
from omnihuman.data.manifest import read_table
from omnihuman.data.shard_reading import place_of_shards
from omnihuman.data.shards import Encoders
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
    missing = [row for row in same if not plan.kept.has(row)]
    for row in missing:
        plan.kept.fetch([row], place_of_shards(folder), str(there.at[row["clip_id"], "shard"]))
    log.info("%d clips came from %s, %d there have another caption", len(missing), folder, len(wanted) - len(same))
    return len(missing)


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
