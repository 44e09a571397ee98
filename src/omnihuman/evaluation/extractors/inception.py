"""Inception v3 of 2015-12-05 (Szegedy et al., 2016), as FID means it, in the layout of torch-fidelity's release.

Facts taken from that repository (Apache-2.0; its weights were converted from TensorFlow's, Apache-2.0): the names and
shapes of all parameters; pictures of 0..255 are resized to 299 as TensorFlow 1 did (bilinear, without half-pixel
centres and without smoothing) and brought to about -1..1; the averages beside convolutions leave padding out, and the
last block takes a maximum instead. The 2048 numbers are the mean over places before the classifier.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.weights import pinned_state_dict
from omnihuman.evaluation.extractors.part import FRAMES, Part, evenly
from omnihuman.evaluation.metrics.measure import Extractor

OPTION = "evaluate.extractors.inception_weights"
PREPROCESSING = "uint8 RGB, bilinear to 299 x 299 as in TensorFlow 1, (x - 128) / 128"
SIDE = 299
BATCH = 16

Convolution = tuple[str, int, int | tuple[int, int]]
"""Name, channels out, size of the kernel."""
Branch = list[list[Convolution]]
"""Convolutions one after another; two in one place stand side by side, and their channels follow each other."""


class Inception(nn.Module):
    """From pictures to 2048 numbers; the classifier is there because its weights are in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = _Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = _Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = _Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = _Convolution(80, 192, 3, padded=False)
        self.Mixed_5b = _Mixed(192, *_small(32))
        self.Mixed_5c = _Mixed(256, *_small(64))
        self.Mixed_5d = _Mixed(288, *_small(64))
        self.Mixed_6a = _Mixed(288, [[("branch3x3", 384, 3)]], _line("branch3x3dbl", (64, 1), (96, 3), (96, 3)))
        self.Mixed_6b = _Mixed(768, *_long(128))
        self.Mixed_6c = _Mixed(768, *_long(160))
        self.Mixed_6d = _Mixed(768, *_long(160))
        self.Mixed_6e = _Mixed(768, *_long(192))
        self.Mixed_7a = _Mixed(
            768,
            _line("branch3x3", (192, 1), (320, 3)),
            _line("branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)),
        )
        self.Mixed_7b = _Mixed(1280, *_wide())
        self.Mixed_7c = _Mixed(2048, *_wide(), largest=True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 or float [N, 3, H, W] in 0..255 -> [N, 2048]."""
        x = (resize_like_tensorflow1(pictures.float(), SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean(dim=(2, 3))


def load_inception(path: Path, sha256: str) -> Inception:
    """The network with weights from a file of the published layout.

    Raises:
        UserError: the file is missing, is not the one that was pinned, or is of another layout.
    """
    network = Inception()
    pinned_state_dict(OPTION, path, sha256, network, "torch-fidelity's weights-inception-2015-12-05")
    return network.eval()


@torch.inference_mode()
def embed_pictures(network: Inception, frames: np.ndarray) -> np.ndarray:
    """float32 [F, 2048] of uint8 [F, H, W, 3] in RGB."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).cpu() for part in pictures.split(BATCH)]).numpy()


def resize_like_tensorflow1(pictures: Tensor, side: int) -> Tensor:
    """Bilinear [N, C, H, W] -> [N, C, side, side]: place i of the new picture is at i * H / side of the old one."""
    rows, columns = (_interpolation(length, side).to(pictures) for length in pictures.shape[2:])
    return rows @ pictures @ columns.T


def _interpolation(length: int, side: int) -> Tensor:
    """float32 [side, length]: what of each old place goes into each new one."""
    places = torch.arange(side, dtype=torch.float32) * (length / side)
    low = places.floor().long()
    matrix = torch.zeros(side, length)
    share = places - low
    matrix[torch.arange(side), low] += 1 - share
    matrix[torch.arange(side), (low + 1).clamp(max=length - 1)] += share
    return matrix


class _Convolution(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padded: bool | None = None
    ) -> None:
        """`padded`: so that the size stays; by default where there is no stride."""
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        keep = stride == 1 if padded is None else padded
        padding = (sides[0] // 2, sides[1] // 2) if keep else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Paths side by side. With a path `branch_pool` the size stays; without one all paths and the pool halve it."""

    def __init__(self, inputs: int, *paths: Branch, largest: bool = False) -> None:
        super().__init__()
        self._paths = [[[name for name, _, _ in layer] for layer in path] for path in paths]
        self._halves = all(path[0][0][0] != "branch_pool" for path in paths)
        self._largest = largest
        for path in paths:
            width = inputs
            for layer in path:
                stride = 2 if self._halves and layer is path[-1] else 1
                for name, outputs, kernel in layer:
                    self.add_module(name, _Convolution(width, outputs, kernel, stride))
                width = sum(outputs for _, outputs, _ in layer)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.max_pool2d(x, 3, 2) if self._halves else self._around(x)
        results = [self._follow(path, pooled if path[0] == ["branch_pool"] else x) for path in self._paths]
        return torch.cat([*results, pooled] if self._halves else results, dim=1)

    def _around(self, x: Tensor) -> Tensor:
        if self._largest:
            return functional.max_pool2d(x, 3, 1, 1)
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def _follow(self, path: list[list[str]], x: Tensor) -> Tensor:
        for layer in path:
            x = torch.cat([self.get_submodule(name)(x) for name in layer], dim=1)
        return x


def _line(prefix: str, *sizes: tuple[int, int | tuple[int, int]]) -> Branch:
    return [[(f"{prefix}_{number}", outputs, kernel)] for number, (outputs, kernel) in enumerate(sizes, 1)]


def _small(pool: int) -> list[Branch]:
    """Blocks 5b to 5d."""
    return [
        [[("branch1x1", 64, 1)]],
        _line("branch5x5", (48, 1), (64, 5)),
        _line("branch3x3dbl", (64, 1), (96, 3), (96, 3)),
        [[("branch_pool", pool, 1)]],
    ]


def _long(width: int) -> list[Branch]:
    """Blocks 6b to 6e."""
    tall, wide = (7, 1), (1, 7)
    return [
        [[("branch1x1", 192, 1)]],
        _line("branch7x7", (width, 1), (width, wide), (192, tall)),
        _line("branch7x7dbl", (width, 1), (width, tall), (width, wide), (width, tall), (192, wide)),
        [[("branch_pool", 192, 1)]],
    ]


def _wide() -> list[Branch]:
    """Blocks 7b and 7c, whose paths end in two directions."""

    def fork(prefix: str, number: int) -> list[Convolution]:
        return [(f"{prefix}_{number}a", 384, (1, 3)), (f"{prefix}_{number}b", 384, (3, 1))]

    return [
        [[("branch1x1", 320, 1)]],
        [*_line("branch3x3", (384, 1)), fork("branch3x3", 2)],
        [*_line("branch3x3dbl", (448, 1), (384, 3)), fork("branch3x3dbl", 3)],
        [[("branch_pool", 192, 1)]],
    ]


def inception_part(config: Extractors, device: str) -> Part[np.ndarray]:
    """Features of evenly spaced frames; errors as for `load_inception`."""
    network = load_inception(Path(config.inception_weights), config.inception_sha256).to(device)
    chosen = f"{FRAMES} evenly spaced frames of each video; {PREPROCESSING}"
    extractor = Extractor("Inception 2015-12-05", chosen, config.inception_sha256, calibrated=True)
    return Part(lambda shown: embed_pictures(network, evenly(shown.frames)), extractor)
