"""Names of what a stage computes on, as drivers and processors give them."""

import os
import re
from pathlib import Path

import torch

from omnihuman.storage.files import publish

_FILE = "device"
_CORES = " cores"


def name_of(device: torch.device) -> str:
    """Of a GPU its product's name; of the processor its model and how many cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return f"{model[1] if model else 'processor'}, {len(os.sched_getaffinity(0))}{_CORES}"


def is_processor(name: str) -> bool:
    """Whether a name of `name_of` is a processor's."""
    return name.endswith(_CORES)


def note_device(work: Path, device: torch.device) -> None:
    """The first rank leaves the name of its device in the stage's work folder, for whoever launched it elsewhere."""
    with publish(work / _FILE) as temporary:
        temporary.write_text(name_of(device))


def noted_device(work: Path) -> str:
    """What the first rank ran on, empty where it did not come to its first step."""
    path = work / _FILE
    return path.read_text() if path.is_file() else ""
