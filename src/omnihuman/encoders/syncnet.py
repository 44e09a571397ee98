"""SyncNet (Chung and Zisserman, "Out of time", 2016) in the layout of joonson/syncnet_python (MIT).

Shapes and constants are those of that repository's SyncNetModel.py and SyncNetInstance.py. Its weights are a pickled
state dict; they load only from a file whose hash is pinned, and only as tensors.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor, nn

from omnihuman.encoders.weights import pinned_state_dict

FPS = 25
SAMPLE_RATE = 16000
FRAMES = 5
"""Of a window of pictures."""
CEPSTRA, SOUND_STEPS = 13, 20
"""Coefficients, and steps of 10 ms, of a window of sound."""
STEPS_PER_FRAME = 4
SIDE = 224
MAX_SHIFT = 15
BATCH = 20


@dataclass(frozen=True)
class Sync:
    """What SyncNet says of one face and one sound."""

    confidence: float  # Sync-C: median less least mean distance
    distance: float  # Sync-D: least mean distance
    offset_frames: int  # positive: the sound leads the picture
    num_windows: int  # outer shifts compare with padding, so few windows bias the figures


class SyncNet(nn.Module):
    """Both streams; the names of all parameters are the published ones."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv2(1, 64), nn.MaxPool2d(1, 1),
            *_conv2(64, 192), nn.MaxPool2d(3, (1, 2)),
            *_conv2(192, 384), *_conv2(384, 256), *_conv2(256, 256), nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 512, (5, 4)), nn.BatchNorm2d(512), nn.ReLU(),
        )  # fmt: skip
        self.netcnnlip = nn.Sequential(
            *_conv3(3, 96, (5, 7, 7), 2, 0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3(96, 256, (1, 5, 5), 2, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_conv3(256, 256, (1, 3, 3), 1, 1), *_conv3(256, 256, (1, 3, 3), 1, 1),
            *_conv3(256, 256, (1, 3, 3), 1, 1), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_conv3(256, 512, (1, 6, 6), 1, 0),
        )  # fmt: skip
        self.netfcaud, self.netfclip = _head(), _head()

    def sound(self, cepstra: Tensor) -> Tensor:
        """[N, 1, 13, 20] -> [N, 1024]."""
        return self.netfcaud(self.netcnnaud(cepstra).flatten(1))

    def picture(self, frames: Tensor) -> Tensor:
        """[N, 3, 5, 224, 224], BGR, 0..255 -> [N, 1024]."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))


def load_syncnet(path: Path, sha256: str, option: str = "score.syncnet_weights") -> SyncNet:
    """The network with weights from a file of the published layout; `option` is the key that names it.

    Raises:
        UserError: the file is missing, is not the one that was pinned, or is of another layout.
    """
    network = SyncNet()
    pinned_state_dict(option, path, sha256, network, "joonson/syncnet_python")
    return network.eval()


@torch.inference_mode()
def measure_sync(network: SyncNet, crops: np.ndarray, samples: np.ndarray) -> Sync:
    """Distances of all windows at 31 shifts.

    Args:
        crops: faces at 25 fps, uint8 [F, 224, 224, 3], RGB.
        samples: sound at 16 kHz from the first frame on, float32 -1..1.

    Raises:
        ValueError: there is no whole window.
    """
    cepstra = mel_cepstra(np.clip(np.round(samples * 32768.0), -32768, 32767))
    num_windows = min(len(crops), len(samples) * FPS // SAMPLE_RATE) - FRAMES
    if num_windows < 1:
        raise ValueError(f"SyncNet needs more than {FRAMES} frames with sound")
    pictures, sounds = [], []
    device = next(network.parameters()).device
    for first in range(0, num_windows, BATCH):
        windows = range(first, min(first + BATCH, num_windows))
        frames = np.stack([crops[i : i + FRAMES, :, :, ::-1] for i in windows])
        pictures.append(network.picture(torch.from_numpy(frames).to(device).permute(0, 4, 1, 2, 3).float()))
        steps = [cepstra[STEPS_PER_FRAME * i : STEPS_PER_FRAME * i + SOUND_STEPS].T[None] for i in windows]
        sounds.append(network.sound(torch.from_numpy(np.stack(steps)).to(device).float()))
    return compare(torch.cat(pictures), torch.cat(sounds))


def compare(pictures: Tensor, sounds: Tensor) -> Sync:
    """Sync-C, Sync-D and offset of embeddings, both [windows, 1024]."""
    padded = nn.functional.pad(sounds, (0, 0, MAX_SHIFT, MAX_SHIFT))
    shifted = padded.unfold(0, 2 * MAX_SHIFT + 1, 1)  # [windows, 1024, shifts]
    distances = nn.functional.pairwise_distance(pictures[:, None], shifted.transpose(1, 2)).mean(dim=0)
    least, position = distances.min(dim=0)
    confidence = distances.median() - least
    return Sync(float(confidence), float(least), MAX_SHIFT - int(position), len(pictures))


def mel_cepstra(samples: np.ndarray) -> np.ndarray:
    """MFCC as python_speech_features 0.6 defines them by default, float64 [steps of 10 ms, 13].

    Args:
        samples: 16 kHz in the amplitude of 16-bit integers.
    """
    size, hop, points = 400, 160, 512
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    num_steps = 1 if len(samples) <= size else 1 + int(np.ceil((len(samples) - size) / hop))
    padded = np.pad(emphasised, (0, max(0, (num_steps - 1) * hop + size - len(samples))))
    steps = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:num_steps]
    power = np.abs(np.fft.rfft(steps, points)) ** 2 / points
    energy, tiny = power.sum(axis=1), np.finfo(float).eps
    bands = power @ _mel_bank(26, points).T
    cepstra = dct(np.log(np.where(bands == 0, tiny, bands)), type=2, axis=1, norm="ortho")[:, :CEPSTRA]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(CEPSTRA) / 22)
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstra


def _mel_bank(num_bands: int, points: int) -> np.ndarray:
    """Triangles on whole bins, float64 [bands, bins]."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), num_bands + 2)
    edges = np.floor((points + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    bins = np.arange(points // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = np.where((bins >= low) & (bins < middle), (bins - low) / (middle - low), 0)
    return rising + np.where((bins >= middle) & (bins < high), (high - bins) / (high - middle), 0)


def _conv2(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


def _conv3(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int, padding: int) -> list[nn.Module]:
    place = (0, padding, padding)
    return [nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), place), nn.BatchNorm3d(outputs), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))
