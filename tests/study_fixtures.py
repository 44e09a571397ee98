"""Videos of systems that differ visibly, for blind studies."""

from pathlib import Path

import numpy as np

from omnihuman.batch import Sound
from omnihuman.media.write import write_video

FPS = 25.0


def write_clip(
    path: Path, colour: int, num_frames: int = 15, size: tuple[int, int] = (96, 64), sound: bool = True
) -> None:
    """A grid that moves over a colour, with a tone; `size` is height and width."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frames = (
        np.stack([np.full(size, colour), ((rows // 4 + (columns + index) // 4) % 2) * 200, columns % 256], axis=-1)
        for index in range(num_frames)
    )
    tone = (0.1 * np.sin(np.arange(round(num_frames / FPS * 16000)) / 9)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (frame.astype(np.uint8) for frame in frames), FPS, Sound(tone, 16000) if sound else None)


def write_systems(folder: Path, systems: tuple[str, ...], items: tuple[str, ...]) -> dict[str, str]:
    """A folder of videos a system."""
    for number, system in enumerate(systems):
        for item in items:
            write_clip(folder / system / f"{item}.mp4", 40 + 200 * number // len(systems))
    return {system: str(folder / system) for system in systems}
