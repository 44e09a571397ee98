"""Renders a batch's items with weights that are loaded once, one after another or several at the same time."""

import gc
import logging
import multiprocessing
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.errors import UserError
from omnihuman.inference.generator import LoadedGenerator, load_generator
from omnihuman.inference.output import OutputError, RenderedVideo
from omnihuman.inference.placement import OFFLOAD
from omnihuman.inference.provenance import ModelIdentity
from omnihuman.inference.render import render
from omnihuman.inference.segment_batches import SharingGenerator, is_out_of_memory
from omnihuman.media.probe import probe
from omnihuman.media.sound import read_sound
from omnihuman.media.worker import start_server
from omnihuman.rendering.jobs import only
from omnihuman.rendering.ledger import Lease, Ledger, LedgerError
from omnihuman.rendering.manifest import Item, Manifest, put
from omnihuman.storage.files import file_sha256

log = logging.getLogger(__name__)
PARTIAL = ".partial"
"""Folder of unfinished videos inside the output folder, one folder a lease."""
_SOUND_TOLERANCE_SECONDS = 0.1  # AAC comes in whole packets
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Policy:
    """How long a silent worker is believed, and how often an item is tried."""

    lease_seconds: float = 60.0
    max_attempts: int = 3
    backoff_seconds: float = 2.0
    """Before the second attempt; doubled before each further one, and varied by half around it."""
    max_memory_failures: int = 2
    """The item is dead after that many; see `_record_failure`."""

    def retry_seconds(self, attempt: int, chance: float) -> float | None:
        """How long to wait after a failed attempt, with `chance` in [0, 1) for the jitter; None gives up."""
        if attempt >= self.max_attempts:
            return None
        return self.backoff_seconds * 2.0 ** (attempt - 1) * (0.5 + chance)


class _LeaseLostError(Exception):
    """Another worker has the item now."""


class _StoppedError(BaseException):
    """This process ends, so the item is given back; no failure of the item's."""


def work(folder: Path, model: Path, policy: Policy, changed: Callable[[], None], together: int = 1) -> None:
    """Renders items of the folder's batch until all are done or dead, those of lost workers included.

    Args:
        model: folder of the weights; they must be those that the manifest pins.
        changed: called after each change of the ledger, and while waiting.
        together: how many items are rendered at the same time, their segments of one size in common batches.

    Raises:
        UserError: the model cannot be loaded or is not the pinned one.
    """
    manifest, ledger = Manifest.load(folder), Ledger(folder)
    if ledger.seconds_until_work(manifest.id) is None:
        return
    # Each item's sound is decoded in a fresh process, which takes a second and more to import its libraries otherwise.
    multiprocessing.set_forkserver_preload([read_sound.__module__])
    _sweep(folder, ledger)
    worker = _Worker(folder, ledger, policy, manifest, _load_pinned(model, manifest.model))
    if together > 1:
        _work_together(worker, together, changed)
    else:
        worker.work(changed)


def _work_together(worker: "_Worker", together: int, changed: Callable[[], None]) -> None:
    """As many threads as items at one time; an exception here, such as Ctrl-C, stops them at their next step."""

    def go_on() -> None:
        if worker.stopped.is_set():
            raise _StoppedError

    if worker.generator.placement.offload:
        raise UserError(f"{OFFLOAD} moves one model at a time: render one video after another (--together 1)")
    generator = SharingGenerator.around(replace(worker.generator, before_step=go_on))
    start_server()  # before there are threads
    crew = replace(worker, generator=generator)
    with ThreadPoolExecutor(together) as pool:
        running = [pool.submit(crew.work, go_on) for _ in range(together)]
        try:
            while not all(future.done() for future in running):
                wait(running, _POLL_SECONDS, FIRST_EXCEPTION)
                changed()
                for future in running:
                    if future.done():
                        future.result()
        finally:
            worker.stopped.set()


def _load_pinned(folder: Path, pinned: ModelIdentity) -> LoadedGenerator:
    generator = load_generator(folder, Sampling())
    if generator.sha256 != pinned.sha256:
        raise UserError(
            f"{folder} holds weights {generator.sha256[:12]}, the batch is pinned to {pinned.sha256[:12]}"
            f" ({pinned.name} version {pinned.version}); remove the folder to have it copied again"
        )
    return generator


def _sweep(folder: Path, ledger: Ledger) -> None:
    """Removes what killed workers left. The folders are listed first, so that none of a newer lease is among them."""
    left = list((folder / PARTIAL).glob("*"))
    held = {str(token) for token in ledger.tokens()}
    for path in left:
        if path.name not in held:
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class _Worker:
    folder: Path
    ledger: Ledger
    policy: Policy
    manifest: Manifest
    generator: LoadedGenerator
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set where several threads are to give their items back."""

    def work(self, changed: Callable[[], None]) -> None:
        """Renders one item after another until all are done or dead."""
        items = {item.id: item for item in self.manifest.items}
        owner = f"{socket.gethostname()}:{os.getpid()}"
        batch, policy = self.manifest.id, self.policy
        while (seconds := self.ledger.seconds_until_work(batch)) is not None:
            claimed = None if seconds else self.ledger.claim(batch, owner, policy.lease_seconds, policy.max_attempts)
            if claimed is None:
                time.sleep(min(_POLL_SECONDS, seconds))
            else:
                self.process(items[claimed.item], claimed)
            changed()

    def process(self, item: Item, lease: Lease) -> None:
        """Renders one item and records how it ended; whatever stops this process gives the item back."""
        started = time.monotonic()
        place = self.folder / PARTIAL / str(lease.token)
        try:
            with _renewed(self.ledger, lease, self.policy.lease_seconds) as still_ours:
                video = self._render(item, place / "video.mp4", still_ours)
                still_ours()
                if not self.ledger.renew(lease, self.policy.lease_seconds):
                    raise _LeaseLostError
                self._publish(item, video)
            self.ledger.done(lease, time.monotonic() - started, video.num_frames)
        except _LeaseLostError:
            log.warning("%s: another worker has it now", item.outputs[0])
        except LedgerError:
            raise
        except Exception as error:
            if self.stopped.is_set():  # what stopped us may have stopped the processes that we need, too
                self.ledger.release(lease)
                raise _StoppedError from error
            self._record_failure(item, lease, error)
        except BaseException:
            self.ledger.release(lease)
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)
            _sweep(self.folder, self.ledger)

    def _render(self, item: Item, path: Path, still_ours: Callable[[], None]) -> RenderedVideo:
        _check_inputs(item)
        values = item.parameters
        # A manifest that was written before a key existed takes its default.
        sampling, config = Sampling(**only(values, Sampling)), Render(**only(values, Render))
        generator = replace(self.generator, sampling=sampling)
        sharing = generator.batches.member() if isinstance(generator, SharingGenerator) else nullcontext()
        with sharing:
            made_by = self.manifest.model
            video = render(item.request(path), generator, config, lambda finished, total: still_ours(), made_by)
        validate(video)
        return video

    def _publish(self, item: Item, video: RenderedVideo) -> None:
        """Gives the video its names; the sidecar comes last, so that a video with one is finished."""
        for name in item.outputs:
            put(video.path, self.folder / name, video.provenance)

    def _record_failure(self, item: Item, lease: Lease, error: Exception) -> None:
        """An item with a mistake of the user's is dead at once; what may pass is tried again.

        What ran out of memory is tried once more at the same size, after this process has freed what it no longer
        needs and others had time to end. Smaller would be another video: a segment's length and size are the model's
        and the picture's, the enlargement is the job's. Segments are rendered and written one at a time already;
        `sampling.guidance_batched=false` also takes the branches of guidance one after another.
        """
        memory = is_out_of_memory(error)
        if isinstance(error, UserError) and not isinstance(error, OutputError):
            retry = None
        elif memory:
            gc.collect()
            retry = self.policy.backoff_seconds if lease.memory_failures + 1 < self.policy.max_memory_failures else None
        else:
            retry = self.policy.retry_seconds(lease.attempt, random.random())
            log.warning("%s: attempt %d failed", item.outputs[0], lease.attempt, exc_info=error)
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.ledger.fail(lease, said[:2000], retry, memory)


def _check_inputs(item: Item) -> None:
    for role, file in item.files.items():
        path = Path(file)
        if not path.is_file():
            raise UserError(f"{role} {path}: is gone since the jobs were submitted")
        if file_sha256(path) != item.hashes[role]:
            raise UserError(f"{role} {path}: has changed since the jobs were submitted, submit them again")


def validate(video: RenderedVideo) -> None:
    """Reads a written file back and compares it with what was to be written.

    Raises:
        ValueError: it has other frames, another size, length or sound.
    """
    found = probe(video.path)
    wanted = (video.num_frames, video.width, video.height)
    if (found.num_frames, found.width, found.height) != wanted:
        size = f"{found.num_frames} frames of {found.width} x {found.height}"
        raise ValueError(f"the written file has {size}, expected {video.num_frames} of {video.width} x {video.height}")
    seconds = video.num_frames / video.fps
    if abs(found.duration_seconds - seconds) > 1 / video.fps:
        raise ValueError(f"the written file lasts {found.duration_seconds:.2f} s, expected {seconds:.2f} s")
    sound = read_sound(video.path)
    sound_seconds = len(sound.samples) / sound.sample_rate if sound else 0.0
    if abs(sound_seconds - video.sound_seconds) > _SOUND_TOLERANCE_SECONDS:
        raise ValueError(f"the written file has {sound_seconds:.2f} s of sound, expected {video.sound_seconds:.2f} s")


@contextmanager
def _renewed(ledger: Ledger, lease: Lease, lease_seconds: float) -> Iterator[Callable[[], None]]:
    """Renews a lease at each third of it; the yielded function raises once the lease is another's."""
    ended, lost = threading.Event(), threading.Event()

    def keep() -> None:
        while not ended.wait(lease_seconds / 3):
            try:
                if not ledger.renew(lease, lease_seconds):
                    lost.set()
            except LedgerError:  # it is busy; the next third may succeed
                continue

    def still_ours() -> None:
        if lost.is_set():
            raise _LeaseLostError

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield still_ours
    finally:
        ended.set()
        thread.join()
