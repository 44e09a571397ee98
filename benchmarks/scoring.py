"""What the default scorers cost against one plain decode, on one core and on two, and what memory a long table takes.

A plain decode is PyAV's, one thread, every picture of the span at its native size, in the codec's own colours; beside
it stands one that converts each picture to RGB, as whoever looks at pixels has to. Both and the scorers run in one
thread of this process in turn, and processor time is compared. The clips are real ones of ../shared/media where that is
there, else drawn people, and last 6 s; those that are not of the wanted size are enlarged and encoded again.

Two cores: the wall time of the guarded workers' run over the same clips, one worker against two, in turn.
Memory: the step over 100 and 1,000 short clips, each in a process of its own, resident set sizes sampled.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import cv2
import psutil
import torch

from measure import machine
from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.config.schema.score import Score
from omnihuman.data.manifest import CLIPS, SOURCES, SOURCES_TABLE, ClipFile, write_table
from omnihuman.data.scorers.registry import scorers_for
from omnihuman.data.scoring import measure, read_clip, score
from omnihuman.data.strips import strip_of
from omnihuman.data.synthetic.corpus import write_clip
from omnihuman.data.synthetic.plan import plan_corpus
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.media.write import write_video

MEDIA = Path(__file__).parents[2] / "shared" / "media"
SECONDS = 6.0
CONFIG = Score()
LIMITS = Limits(600.0, 4096)
CHOSEN = {
    "512 x 512 H.264": ("talk/lp_d11.mp4", None),
    "1920 x 1080 H.264": ("body/lp_s32.mp4", (1920, 1080)),
    "1080 x 1920 HEVC": ("talk/latentsync_1.mp4", None),
}
"""File and, where it has to be enlarged, width and height."""


def clips(folder: Path) -> dict[str, ClipFile]:
    """By shape and codec."""
    if MEDIA.is_dir():
        chosen = {name: (MEDIA / file, size) for name, (file, size) in CHOSEN.items()}
    else:
        drawn = drawn_video(folder)
        chosen = {"512 x 512 H.264": (drawn, (512, 512)), "1920 x 1080 H.264": (drawn, (1920, 1080))}
    found = {}
    for number, (name, (path, size)) in enumerate(chosen.items()):
        file = path if size is None else enlarged(path, size, folder / f"{number}.mp4")
        found[name] = ClipFile(f"clip-{number}", "video", file, None, 0.0, SECONDS)
    return found


def drawn_video(folder: Path) -> Path:
    """A drawn person who speaks for more than 6 s."""
    (plan, *_) = plan_corpus(SyntheticCorpus(num_identities=1, clips_per_identity=1, clip_seconds=9.0), 0)
    write_clip(plan, folder, folder)
    return next(folder.glob("*.mp4"))


def enlarged(path: Path, size: tuple[int, int], to: Path) -> Path:
    """At another size, with its sound."""
    frames = read_frames(path, fps=25.0, end_seconds=SECONDS)
    pictures = (cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC) for picture in frames.pixels)
    write_video(to, pictures, 25.0, read_sound(path, 48000, 0.0, SECONDS), preset="medium")
    return to


def plain_decode(path: Path, to_rgb: bool) -> int:
    """Number of pictures."""
    number = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for picture in container.decode(stream):
            if picture.time is not None and picture.time >= SECONDS:
                break
            number += 1
            if to_rgb:
                picture.to_ndarray(format="rgb24")
    return number


def measured(clip: ClipFile) -> float:
    """Processor seconds of the scorers and the strip, after the shared decode."""
    content = read_clip(CONFIG, clip)
    start = time.process_time()
    measure(scorers_for(CONFIG), content)
    strip_of(content.frames.pixels)
    return time.process_time() - start


def timed(call: Callable[[], object]) -> float:
    """Processor seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(name: str, clip: ClipFile, repetitions: int) -> None:
    """Prints ratios of one clip."""
    rows = []
    for _ in range(repetitions + 1):  # the first fills caches and does not count
        plain, rgb = (timed(partial(plain_decode, clip.path, to_rgb)) for to_rgb in (False, True))
        read = timed(partial(read_clip, CONFIG, clip))
        rows.append((plain, rgb, read, measured(clip)))
    rows = rows[1:]
    kilobits = 8 * clip.path.stat().st_size / 1000 / duration(clip.path)
    plain = statistics.median(row[0] for row in rows)
    print(f"{name}, {plain_decode(clip.path, False)} pictures, {kilobits:,.0f} kbit/s: a plain decode {plain:.3f} s")
    for what, of in (
        ("scorers together", lambda row: row[3] / row[0]),
        ("their shared decode, small, with sound", lambda row: row[2] / row[0]),
        ("both", lambda row: (row[2] + row[3]) / row[0]),
        ("both, against a plain decode to RGB", lambda row: (row[2] + row[3]) / row[1]),
    ):
        ratios = [of(row) for row in rows]
        print(f"  {what:<40} {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def duration(path: Path) -> float:
    """Seconds."""
    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def score_one(clip: ClipFile) -> float:
    """What a worker does for a clip."""
    cv2.setNumThreads(1)
    return measured(clip)


def two_cores(clip: ClipFile, num_clips: int, repetitions: int) -> None:
    """Prints how much faster two workers are than one."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repetitions):
        for workers, found in walls.items():
            os.environ["OMNIHUMAN_WORKERS"] = str(workers)
            outcomes = run_guarded(score_one, [clip] * num_clips, LIMITS, "")
            next(outcomes)  # both workers have started, or nearly
            start = time.perf_counter()
            assert all(outcome.status == "ok" for outcome in outcomes)
            found.append(time.perf_counter() - start)
    ratios = [one / two for one, two in zip(*walls.values(), strict=True)]
    print(
        f"two workers against one, {num_clips} clips: {statistics.median(ratios):.2f} times as fast"
        f" ({min(ratios):.2f} to {max(ratios):.2f}); load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )


def score_many(num_clips: int) -> None:
    """Runs the step over so many clips of 0.8 s of one drawn video, and prints how much memory its processes held."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = drawn_video(folder)
        source = {"source_id": "s", "sha256": "", "path": str(video), "keypoints_path": "", "status": "ok"}
        write_table([dict.fromkeys(SOURCES.names) | source], SOURCES, folder / SOURCES_TABLE)
        rows = [
            {"clip_id": f"c{number:06d}", "source_id": "s", "index": number, "status": "ok", "error": ""}
            | {"start_seconds": 0.005 * (number % 1000), "end_seconds": 0.005 * (number % 1000) + 0.8}
            for number in range(num_clips)
        ]
        write_table(rows, CLIPS, folder / "clips.parquet")
        os.environ |= {"OMNIHUMAN_HOME": str(folder / "home")}
        most, ended = {"step": 0, "worker": 0}, threading.Event()
        sampler = threading.Thread(target=sample_memory, args=(most, ended))
        sampler.start()
        score(CONFIG, folder, folder / "clips.parquet", folder / "scores.parquet", folder / "strips.parquet")
        ended.set()
        sampler.join()
    megabytes = ", ".join(f"{which} {size / 2**20:.0f} MB" for which, size in most.items())
    print(f"{num_clips} clips, largest resident set: {megabytes}", flush=True)


def sample_memory(most: dict[str, int], ended: threading.Event) -> None:
    """Raises the figures to the largest that are seen."""
    this = psutil.Process()
    while not ended.wait(0.1):
        most["step"] = max(most["step"], this.memory_info().rss)
        for child in this.children(recursive=True):
            try:
                most["worker"] = max(most["worker"], child.memory_info().rss)
            except psutil.Error:
                continue


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--clips", type=int, default=40, help="of the run on two cores")
    parser.add_argument("--memory", type=int, nargs="*", default=[100, 1000], help="clips of the runs for memory")
    parser.add_argument("--score-many", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.score_many:
        score_many(given.score_many)
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"{machine(torch.device('cpu'))}; load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = clips(Path(folder))
        for name, clip in found.items():
            compare(name, clip, given.repetitions)
        two_cores(found["512 x 512 H.264"], given.clips, given.repetitions)
    for number in given.memory:
        subprocess.run([sys.executable, __file__, "--score-many", str(number)], check=True)


if __name__ == "__main__":
    main()
