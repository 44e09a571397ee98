"""The loop that trains the small SyncNet.

A window of pictures is to find its own window of sound among the others of the batch, which are of the same clip at
other times (shifted sound) and of other people (swapped sound), and the sound its pictures (InfoNCE, van den Oord et
al., 2018). Clips are those that the policy lets train sound, which a stand-in for this very network may have chosen.
"""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from omnihuman.encoders.small_syncnet import SmallSyncNet, picture_windows, sound_windows
from omnihuman.encoders.syncnet import STEPS_PER_FRAME

CLIPS_PER_BATCH, WINDOWS_PER_BATCH = 16, 192
SPAN_FRAMES = 150
"""Longest piece of a clip whose mean is taken away; scored clips are hardly longer."""
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
SAME_MOMENT_FRAMES = 1
"""Windows of one clip no further apart count neither as a pair nor as its opposite."""


@dataclass(frozen=True)
class Speaker:
    """One clip as the network sees it."""

    source_id: str
    identity: str
    licence: str
    mouths: np.ndarray  # uint8 [F, 28, 32, 3]
    cepstra: np.ndarray  # float32 [4 F, 13]


def fit(speakers: list[Speaker], steps: int, seed: int) -> SmallSyncNet:
    """Trains a network from the start; the same speakers, steps and seed give the same one on the same machine."""
    torch.manual_seed(seed)
    network, random = SmallSyncNet().train(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for _ in (progress := tqdm(range(steps), desc="train", disable=None, file=sys.stderr)):
        pictures, sounds, clip, start = _batch(speakers, random)
        loss = contrast(network, pictures, sounds, clip, start)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.2f}")
    return network.eval()


def contrast(network: SmallSyncNet, pictures: Tensor, sounds: Tensor, clip: Tensor, start: Tensor) -> Tensor:
    """Mean cross entropy of finding the own partner, both ways; `clip` and `start` [N] say where a window is from."""
    similar = network.log_scale.exp() * network.picture(pictures) @ network.sound(sounds).T
    near = (clip[:, None] == clip) & ((start[:, None] - start).abs() <= SAME_MOMENT_FRAMES)
    near.fill_diagonal_(False)
    similar = similar.masked_fill(near, -torch.inf)
    own = torch.arange(len(clip))
    return (functional.cross_entropy(similar, own) + functional.cross_entropy(similar.T, own)) / 2


def _batch(speakers: list[Speaker], random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chosen = random.choice(len(speakers), min(CLIPS_PER_BATCH, len(speakers)), replace=False)
    parts = []
    for index in chosen:
        mouths, cepstra = _span(speakers[index], random)
        windows, sound = picture_windows(_varied(mouths, random)), sound_windows(cepstra)
        start = random.permutation(len(windows))[: WINDOWS_PER_BATCH // len(chosen)]
        parts.append((windows[start], sound[start], torch.full((len(start),), int(index)), torch.from_numpy(start)))
    pictures, sounds, clip, start = (torch.cat(part) for part in zip(*parts, strict=True))
    return pictures, sounds, clip, start


def _span(speaker: Speaker, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = int(random.integers(max(1, len(speaker.mouths) - SPAN_FRAMES + 1)))
    sound = speaker.cepstra[STEPS_PER_FRAME * first : STEPS_PER_FRAME * (first + SPAN_FRAMES)]
    return speaker.mouths[first : first + SPAN_FRAMES], sound


def _varied(mouths: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Mirrored or not, moved by up to two pixels, lighter or darker: what says nothing of the sound."""
    if random.random() < 0.5:
        mouths = mouths[:, :, ::-1]
    padded = np.pad(mouths, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    top, left = random.integers(0, 5, 2)
    moved = padded[:, top : top + mouths.shape[1], left : left + mouths.shape[2]]
    return moved * np.float32(random.uniform(0.6, 1.4))
