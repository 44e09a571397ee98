"""I3D (Carreira and Zisserman, 2017), trained on Kinetics-400, as FVD means it: the TorchScript file of StyleGAN-V.

A TorchScript file is a program, so it loads only where its hash is pinned. It takes clips in -1..1 and gives the 400
logits (StyleGAN-V's call: `rescale=False, resize=False, return_features=True`). How pictures come to 224 pixels is not
the same everywhere, and moves the figure: `crop` is StyleGAN-V's, `squash` that of the first FVD and of cd-fvd.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.weights import check_file
from omnihuman.errors import UserError
from omnihuman.evaluation.extractors.part import CLIPS, FRAMES, Part, clips_of
from omnihuman.evaluation.metrics.measure import Extractor, Shown

OPTION = "evaluate.extractors.i3d_weights"
SIDE = 224
LOGITS = 400
PREPROCESSING = {
    "crop": "bilinear, short side 224, centre crop (StyleGAN-V), -1..1",
    "squash": "bilinear, both sides 224 (cd-fvd), -1..1",
}


def load_i3d(path: Path, sha256: str, device: str = "cpu") -> Any:
    """The network of a file.

    Raises:
        UserError: the file is missing, is not the one that was pinned, or no TorchScript.
    """
    check_file(OPTION, path, sha256)
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        first = (str(error).splitlines() or ["unreadable"])[0]
        raise UserError(f"{OPTION}={path} is no TorchScript file such as i3d_torchscript.pt: {first}") from error


@torch.inference_mode()
def embed_clips(network: Any, clips: Sequence[np.ndarray], resizing: str, device: str = "cpu") -> np.ndarray:
    """float32 [N, 400] of clips uint8 [F, H, W, 3], one at a time, because eight take gigabytes.

    Raises:
        UserError: the network gives something else than 400 numbers.
    """
    found = []
    for clip in clips:
        video = prepared(clip, resizing)[None].to(device)
        logits = network(video, rescale=False, resize=False, return_features=True)
        if logits.shape != (1, LOGITS):
            raise UserError(f"{OPTION}: it gives {list(logits.shape)}, I3D's logits are [1, {LOGITS}]")
        found.append(logits[0].float().cpu().numpy())
    return np.stack(found)


def prepared(clip: np.ndarray, resizing: str) -> Tensor:
    """float32 [3, F, 224, 224] in -1..1 of uint8 [F, H, W, 3]."""
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float() / 255
    height, width = frames.shape[2:]
    if resizing == "squash":
        size = (SIDE, SIDE)
    else:
        scale = SIDE / min(height, width)
        size = (SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIDE)
    frames = functional.interpolate(frames, size, mode="bilinear", align_corners=False)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return (2 * frames[:, :, top : top + SIDE, left : left + SIDE] - 1).transpose(0, 1)


def i3d_part(config: Extractors, device: str) -> Part[np.ndarray | None]:
    """Logits of a video's clips, [n, 400]; None of one that is shorter than a clip.

    Raises:
        UserError: as for `load_i3d`, or the resizing is unknown.
    """
    resizing = config.i3d_resizing
    if resizing not in PREPROCESSING:
        known = ", ".join(PREPROCESSING)
        raise UserError(f"evaluate.extractors.i3d_resizing: unknown '{resizing}', expected one of {known}")
    network = load_i3d(Path(config.i3d_weights), config.i3d_sha256, device)
    chosen = f"up to {CLIPS} clips of {FRAMES} frames on end of each video; {PREPROCESSING[resizing]}"

    def embed(shown: Shown) -> np.ndarray | None:
        clips = clips_of(shown.frames)
        return embed_clips(network, clips, resizing, device) if clips else None

    return Part(embed, Extractor("I3D Kinetics-400 torchscript", chosen, config.i3d_sha256, calibrated=True))
