"""Our model's video of each item, rendered on all GPUs and kept, so that a killed evaluation goes on."""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
from tqdm import tqdm

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.config.schema.protocol import EvaluationProtocol
from omnihuman.encoders.devices import devices_for
from omnihuman.errors import UserError
from omnihuman.evaluation.prepared import PreparedItem
from omnihuman.inference.generator import LoadedGenerator, load_generator
from omnihuman.inference.inputs import RenderInputs, read_inputs
from omnihuman.inference.kept_segments import KeptSegments
from omnihuman.inference.long_video import VideoJob, generate_videos
from omnihuman.inference.output import write_rendered
from omnihuman.inference.placement import DEVICE
from omnihuman.inference.provenance import ModelIdentity, describe
from omnihuman.inference.render import parameters
from omnihuman.inference.request import RenderRequest
from omnihuman.model.checkpoint import WEIGHTS
from omnihuman.storage.files import file_sha256
from omnihuman.storage.work import code_key, content_key

_CODE = ("inference", "model", "diffusion", "conditions", "encoders", "packed.py", "keyed_random.py")
_LENGTHS_ALIKE = 64
"""Frames; videos of one batch that differ by more would wait for one another."""


@dataclass(frozen=True)
class Rendering:
    """How our model's videos are made."""

    model: Path
    sampling: Sampling
    render: Render
    batch_size: int = 1


def videos_key(items_sha256: str, protocol: EvaluationProtocol, rendering: Rendering) -> str:
    """Of all that decides on the videos; metrics do not.

    Raises:
        UserError: the folder holds no model.
    """
    weights = rendering.model / WEIGHTS
    if not weights.is_file():
        raise UserError(f"{rendering.model}: holds no {WEIGHTS}; name the folder of a trained stage by --model")
    asked = {name: value for name, value in asdict(protocol).items() if name not in ("metrics", "confidence")}
    return content_key(
        items=items_sha256,
        protocol=asked,
        model=file_sha256(weights),
        sampling=asdict(rendering.sampling),
        render=asdict(rendering.render),
        code=code_key(*_CODE),
    )


def render_items(
    items: Sequence[PreparedItem],
    protocol: EvaluationProtocol,
    rendering: Rendering,
    folder: Path,
    devices: Sequence[str] = (),
) -> None:
    """Writes ITEM.mp4 with its sidecar for each item that has none yet.

    Args:
        folder: belongs to one `videos_key`.
        devices: one process each takes batches from a shared list; by default every GPU, or the processor in this
            process. Where `$OMNIHUMAN_RENDER_DEVICE` names one, that alone.

    Raises:
        UserError: an input cannot be read, or a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [item for item in items if not (folder / f"{item.item}.mp4").is_file()]
    batches = list(_batches(missing, rendering.batch_size))
    devices = devices or ([""] if os.environ.get(DEVICE) else devices_for("auto"))
    devices = devices[: max(1, len(batches))]
    with tqdm(total=len(items), initial=len(items) - len(missing), desc="render items", file=sys.stderr) as bar:
        for count in _rendered(batches, protocol, rendering, folder, devices):
            bar.update(count)


def _batches(items: Sequence[PreparedItem], size: int) -> Iterator[list[PreparedItem]]:
    """Items of one size and of lengths that are about alike."""

    def alike(item: PreparedItem) -> tuple[int, int, int]:
        return item.width, item.height, item.num_frames // _LENGTHS_ALIKE

    for _, group in groupby(sorted(items, key=alike), alike):
        together = list(group)
        yield from (together[start : start + size] for start in range(0, len(together), size))


def _rendered(
    batches: Sequence[list[PreparedItem]],
    protocol: EvaluationProtocol,
    rendering: Rendering,
    folder: Path,
    devices: Sequence[str],
) -> Iterator[int]:
    """Yields the number of items of each finished batch."""
    if len(devices) == 1:
        if batches:
            _start(rendering, devices[0])
        yield from (_render_batch(batch, protocol, rendering, folder) for batch in batches)
        return
    context = multiprocessing.get_context("spawn")
    free = context.SimpleQueue()
    for device in devices:
        free.put(device)
    with ProcessPoolExecutor(len(devices), context, _start_on_a_free_device, (rendering, free)) as pool:
        try:
            futures = [pool.submit(_render_batch, batch, protocol, rendering, folder) for batch in batches]
            yield from (future.result() for future in futures)
        except BrokenProcessPool as error:
            raise UserError(
                "a process that renders was killed; run the same again, finished videos are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_generator: LoadedGenerator | None = None
"""Of this process."""


def _start_on_a_free_device(rendering: Rendering, free: "SimpleQueue[str]") -> None:
    _start(rendering, free.get())


def _start(rendering: Rendering, device: str) -> None:
    global _generator
    if device:
        os.environ[DEVICE] = device
    _generator = load_generator(rendering.model, rendering.sampling)


def _render_batch(
    items: Sequence[PreparedItem], protocol: EvaluationProtocol, rendering: Rendering, folder: Path
) -> int:
    assert _generator is not None
    makers = [_Maker(item, protocol, rendering.render, folder, _generator) for item in items]
    jobs = [maker.job for maker in makers]
    for number, frames in generate_videos(_generator, jobs, makers[0].config, batch_size=len(jobs)):
        makers[number].take(frames)
    return len(items)


class _Maker:
    """One video in the making: its segments come between those of others."""

    def __init__(
        self, item: PreparedItem, protocol: EvaluationProtocol, render: Render, folder: Path, loaded: LoadedGenerator
    ) -> None:
        assert item.picture is not None
        self.config = replace(
            render,
            width=item.width,
            height=item.height,
            fps=protocol.clips.fps,
            chaining=protocol.chaining,
            label="",
        )
        self._generator, self._frames = loaded, []
        seed = _seed(protocol.seed, item.item)
        output = folder / f"{item.item}.mp4"
        image_pose = item.picture_pose if item.pose else None  # acts with a driving pose only
        self._request = RenderRequest(
            item.picture, output, item.sound, item.pose, image_pose, text=item.text, seed=seed
        )
        self._inputs: RenderInputs = read_inputs(self._request, loaded)
        self._kept = KeptSegments(folder / "segments" / item.item)
        self.job = VideoJob(self._inputs.video, seed, self._kept)

    def take(self, frames: np.ndarray) -> None:
        """Takes the next segment's frames, and writes the video after the last."""
        self._frames += [(frame * 255).round().astype(np.uint8) for frame in frames]
        if len(self._frames) < self._inputs.video.num_frames:
            return
        request, loaded = self._request, self._generator
        assert request.output is not None
        identity = ModelIdentity("", None, loaded.sha256)
        made_of = describe(identity, request.inputs(), parameters(request, loaded.sampling, self.config))
        pictures = (frame.astype(np.float32) / 255 for frame in self._frames)
        fps = loaded.encoders.fps
        write_rendered(request.output, pictures, self._inputs, fps, self.config, made_of, request.inputs())
        self._kept.clear()
        self._frames = []


def _seed(seed: int, item: str) -> int:
    """Another noise for each item, the same wherever it is rendered."""
    return int.from_bytes(hashlib.sha256(f"{seed} {item}".encode()).digest()[:4])
