"""Image quality and aesthetics by Q-Align (Wu et al., 2023), through pyiqa, which is installed by whoever may use it.

Facts of pyiqa's `qalign`: it loads the hub id q-future/one-align, whose own code runs with it, takes one picture at a
time, pads it to a square, and gives 1 to 5. Code and weights are therefore those of the hub's cache, whose hash is
pinned, and nothing is downloaded here.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.weights import check_pinned
from omnihuman.errors import UserError
from omnihuman.evaluation.extractors.part import FRAMES, Part, evenly, require_licence
from omnihuman.evaluation.metrics.measure import Extractor, Shown

OPTION = "evaluate.extractors.qalign_weights"
HUB_ID = "q-future/one-align"
LICENCE = "S-Lab non-commercial for Q-Align, PolyForm-Noncommercial for pyiqa"


def qalign_part(config: Extractors, task: str, device: str) -> Part[float]:
    """Mean of evenly spaced frames; `task` is quality or aesthetic.

    Raises:
        UserError: nobody allowed the licence, pyiqa is not installed, or weights are missing or not the pinned ones.
    """
    require_licence(config.allow_non_commercial, OPTION, LICENCE)
    if config.qalign_weights != HUB_ID:
        raise UserError(f"{OPTION} is {config.qalign_weights!r}: pyiqa knows Q-Align as {HUB_ID} alone, set it to that")
    network = _network(config.qalign_sha256, device)
    told = f"{FRAMES} evenly spaced frames, one by one, padded to a square; {task}"

    def rate(shown: Shown) -> float:
        return float(np.mean([_rating(network, frame, task, device) for frame in evenly(shown.frames)]))

    return Part(rate, Extractor("Q-Align (pyiqa)", told, config.qalign_sha256, calibrated=True))


def _rating(network: Any, frame: np.ndarray, task: str, device: str) -> float:
    import torch

    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return float(network(picture.to(device), task_=task))


@cache
def _network(sha256: str, device: str) -> Any:
    try:
        import pyiqa  # pyright: ignore[reportMissingImports] (nobody has to install it)
    except ImportError as error:
        raise UserError(
            f"{OPTION} needs pyiqa ({error}): pip install pyiqa where its licence ({LICENCE}) allows your use, or leave"
            " the key empty for the stand-in"
        ) from error
    folder = _cached()
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    check_pinned(OPTION, folder, files, sha256)
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True  # the variable was read at import
    try:
        return pyiqa.create_metric("qalign", device=device)
    finally:
        constants.HF_HUB_OFFLINE = before


def _cached() -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(HUB_ID, local_files_only=True))
    except OSError as error:
        raise UserError(
            f"{OPTION}: {HUB_ID} is not in the hub's cache of this machine: download it, by `hf download {HUB_ID}`"
        ) from error
