"""A small SyncNet (after Chung and Zisserman, "Out of time", 2016), trained by the project on its user's own clips.

As in the published one, two streams see 5 pictures and 20 steps of 13 cepstra, and give embeddings that lie near each
other where picture and sound belong together. Small, because it sees the steadied mouth alone: 28 x 32 pixels less
their mean over the clip, so that a few people teach it little of how they look; and cepstra less theirs, so that a
microphone does not matter either. Weights are safetensors whose header says what they were trained on.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.encoders.syncnet import CEPSTRA, FRAMES, SOUND_STEPS, STEPS_PER_FRAME, mel_cepstra
from omnihuman.errors import UserError
from omnihuman.storage.files import publish

HEIGHT, WIDTH = 28, 32
"""Of a picture of the mouth."""
EMBEDDING = 128
LAYOUT = "omnihuman small syncnet 1"
BATCH = 256


@dataclass(frozen=True)
class TrainedOn:
    """What a network knows: it travels with the weights."""

    num_clips: int
    num_people: int
    licences: tuple[str, ...]
    source_ids: tuple[str, ...]
    """By which a takedown finds the file."""
    steps: int
    seed: int
    auc: float
    """Of own sound against shifted and other people's, on people held out; NaN where there were too few."""
    auc_low: float
    auc_high: float
    """95% bootstrap over people."""

    def label(self) -> str:
        """For the score table."""
        return f"trained on {self.num_clips} clips of {self.num_people} people"


class SmallSyncNet(nn.Module):
    """Both streams; embeddings have length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = nn.Sequential(
            *_conv2(3 * FRAMES, 48, 5), *_conv2(48, 64, 3), *_conv2(64, 96, 3), nn.Flatten(),
            nn.Linear(96 * 4 * 4, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, EMBEDDING),
        )  # fmt: skip
        self.sounds = nn.Sequential(
            nn.BatchNorm1d(CEPSTRA), *_conv1(CEPSTRA, 64, 1), *_conv1(64, 96, 2), *_conv1(96, 128, 2), nn.Flatten(),
            nn.Linear(128 * 5, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, EMBEDDING),
        )  # fmt: skip
        self.log_scale = nn.Parameter(torch.tensor(2.0))
        """Of similarities in the loss; without use afterwards."""

    def picture(self, frames: Tensor) -> Tensor:
        """[N, 15, 28, 32], of `picture_windows` -> [N, 128]."""
        return functional.normalize(self.pictures(frames), dim=1)

    def sound(self, cepstra: Tensor) -> Tensor:
        """[N, 13, 20], of `sound_windows` -> [N, 128]."""
        return functional.normalize(self.sounds(cepstra), dim=1)


def picture_windows(mouths: np.ndarray) -> Tensor:
    """The windows that begin at each frame, float32 [F - 4, 15, 28, 32]; `mouths` is uint8 [F, 28, 32, 3]."""
    moving = torch.from_numpy(mouths).float()
    moving = (moving - moving.mean(dim=0)) / 32.0
    windows = moving.unfold(0, FRAMES, 1)  # [F - 4, 28, 32, 3, 5]
    return windows.permute(0, 4, 3, 1, 2).flatten(1, 2)


def sound_windows(cepstra: np.ndarray) -> Tensor:
    """The sound of each window of pictures, float32 [F - 4, 13, 20]; `cepstra` as of `cepstra_of`."""
    steps = torch.from_numpy(cepstra)
    return (steps - steps.mean(dim=0)).unfold(0, SOUND_STEPS, STEPS_PER_FRAME)


def cepstra_of(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """float32 [4 F, 13]; `samples` are float32 -1..1 at 16 kHz from the first frame on."""
    found = mel_cepstra(np.round(samples * 32768.0))[: STEPS_PER_FRAME * num_frames]
    missing = STEPS_PER_FRAME * num_frames - len(found)
    return np.pad(found, ((0, missing), (0, 0)), mode="edge").astype(np.float32)


@torch.inference_mode()
def embed_pictures(network: SmallSyncNet, mouths: np.ndarray) -> np.ndarray:
    """float32 [F - 4, 128] of uint8 [F, 28, 32, 3]."""
    windows = picture_windows(mouths)
    return torch.cat([network.picture(part) for part in windows.split(BATCH)]).numpy()


@torch.inference_mode()
def embed_sound(network: SmallSyncNet, cepstra: np.ndarray) -> np.ndarray:
    """float32 [F - 4, 128] of float32 [4 F, 13]."""
    return torch.cat([network.sound(part) for part in sound_windows(cepstra).split(BATCH)]).numpy()


def save_small_syncnet(network: SmallSyncNet, trained_on: TrainedOn, path: Path) -> None:
    """Publishes weights with what they were trained on in their header."""
    with publish(path) as temporary:
        header = {"layout": LAYOUT, "trained_on": json.dumps(asdict(trained_on))}
        save_file(network.state_dict(), temporary, metadata=header)


def read_trained_on(path: Path) -> TrainedOn:
    """What the header of a file of weights says.

    Raises:
        UserError: the file is missing or no network of this kind.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        if header.get("layout") != LAYOUT:
            raise UserError(f"{path} is no small SyncNet of this version: train one by `omnihuman data train-syncnet`")
        told = json.loads(header["trained_on"])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): train one by `omnihuman data train-syncnet`") from error
    return TrainedOn(**told | {key: tuple(told[key]) for key in ("licences", "source_ids")})


def load_small_syncnet(path: Path) -> SmallSyncNet:
    """The network of a file; errors as for `read_trained_on`."""
    read_trained_on(path)
    network = SmallSyncNet()
    with safe_open(path, "pt") as file:
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    return network.eval()


def _conv2(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2), nn.BatchNorm2d(outputs), nn.ReLU()]


def _conv1(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv1d(inputs, outputs, 5, stride, 2), nn.BatchNorm1d(outputs), nn.ReLU()]
