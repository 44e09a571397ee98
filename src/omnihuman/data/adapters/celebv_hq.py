"""CelebV-HQ: celebvhq_info.json beside the videos (Zhu et al., 2022).

Either processed/CLIP.mp4, already cut and cropped as its authors' script leaves them, or raw/YTB_ID.mp4, of which the
clip is a span. The box of the face in raw videos is not applied: frames are used whole. The set names nobody: people
are told apart by the video that they are taken from, so that at least no video is in both parts of the split.
"""

import json
from pathlib import Path
from typing import Any

from omnihuman.data.entries import Entry
from omnihuman.data.sidecar import Sidecar
from omnihuman.errors import UserError

INFO = "celebvhq_info.json"
_PLACES = ("processed", ".")
"""Where clips that are cut already may lie."""


def entries(root: Path) -> list[Entry]:
    """The clips that the JSON names and that are here; those that were never downloaded are passed over.

    Raises:
        UserError: the JSON is missing or damaged, or none of its clips is here.
    """
    info = root / INFO
    try:
        clips = json.loads(info.read_text(encoding="utf-8"))["clips"]
        found = [entry for name, clip in clips.items() if (entry := _entry(root, name, clip))]
    except FileNotFoundError as error:
        raise UserError(f"{info} is missing: put the set's JSON there, or set collect.layout=plain") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{info}: is not the JSON of CelebV-HQ ({error!r}); download it again") from error
    if not found:
        raise UserError(f"{root}: holds none of the clips of {INFO}; expected processed/CLIP.mp4 or raw/YTB_ID.mp4")
    return found


def _entry(root: Path, name: str, clip: dict[str, Any]) -> Entry | None:
    video, duration, emotion = clip["ytb_id"], clip["duration"], clip["attributes"]["emotion"]
    if {"/", "\\", ".."} & {name, video} or "/" in name or "/" in video:
        raise ValueError(f"{name} is no name of a file")
    labels = emotion["labels"]
    feelings = [labels] if isinstance(labels, str) else list(dict.fromkeys(one["emotion"] for one in labels))
    stated = Sidecar(identity=f"CelebV-HQ {video}", caption=f"a person, {', then '.join(feelings)}")
    where = f"{INFO}, clips.{name}"
    for place in _PLACES:
        if (path := root / place / f"{name}.mp4").is_file():
            return Entry(path, root, where, stated)
    path = root / "raw" / f"{video}.mp4"
    span = (float(duration["start_sec"]), float(duration["end_sec"]))
    if not 0 <= span[0] < span[1]:
        raise ValueError(f"{name}: duration is {span}")
    return Entry(path, root, where, stated, span) if path.is_file() else None
