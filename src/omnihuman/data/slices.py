"""The funnel by language, by source and by how much of a person is seen."""

from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd

from omnihuman.data.eligibility import MODALITIES, Verdicts

MAX_SLICES = 12
"""Of one kind, the largest; the rest count as one."""
NOT_STATED = "not stated"
SHOTS = {"face": 0.35, "half body": 0.2, "full body": 0.0}
"""From which height of the face over the picture's on; ours."""
NO_FACE = "no face"


@dataclass(frozen=True)
class Slice:
    """A part of the usable clips."""

    kind: str
    name: str
    clips: int
    hours: float
    eligible: dict[str, int]  # clips by modality


def slices(sources: pd.DataFrame, clips: pd.DataFrame, scores: pd.DataFrame, verdicts: Verdicts) -> list[Slice]:
    """The slices of each kind, the largest first."""
    of_source = sources.set_index("source_id")
    hours = ((clips["end_seconds"] - clips["start_seconds"]) / 3600).to_numpy()
    eligible = {modality: ~verdicts.fails(modality).any(axis=1) for modality in MODALITIES}
    folders = of_source["path"].map(lambda path: PurePath(path).parent.name or ".")
    kinds = {
        "language": clips["source_id"].map(of_source["language"]).fillna("").replace("", NOT_STATED),
        "source": clips["source_id"].map(folders).fillna(NOT_STATED),
        "shot": _shots(clips, scores),
    }
    found = []
    for kind, names in kinds.items():
        column = names.to_numpy(object)
        kept = names[verdicts.usable].value_counts().index[:MAX_SLICES].tolist()
        for name in [*kept, None]:
            rows = verdicts.usable & ((column == name) if name is not None else ~np.isin(column, kept))
            if rows.any():
                counts = {modality: int((rows & fit).sum()) for modality, fit in eligible.items()}
                found.append(Slice(kind, name or "others", int(rows.sum()), float(hours[rows].sum()), counts))
    return found


def _shots(clips: pd.DataFrame, scores: pd.DataFrame) -> pd.Series:
    faces = scores[(scores["scorer"] == "face_size") & (scores["status"] == "ok")]
    heights = clips["clip_id"].map(dict(zip(faces["clip_id"], faces["value"], strict=True))).astype(float)
    names = np.select([heights >= height for height in list(SHOTS.values())[:-1]], list(SHOTS)[:-1], list(SHOTS)[-1])
    return pd.Series(np.where(heights.isna() | (heights <= 0), NO_FACE, names), dtype=object)
