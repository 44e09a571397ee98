"""What a minute of speech does to a face: identity, colour, sharpness and lips against time, for each way of chaining.

`python benchmarks/drift.py --model models/3_pose [--stream-model other/3_pose] --encoded data/encoded`: held-out
drawn people speak the joined sounds of other held-out clips. `through a file` writes the five motion frames as H.264
and reads them back before they are encoded again, as tools do that chain rendered files. Identity is a stand-in, named
as such: the correlation of the face's brightness with the reference's.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from measure import machine, rounded
from omnihuman.batch import Sound
from omnihuman.conditions.motion_frames import NUM_MOTION_FRAMES
from omnihuman.config.load import load_params
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.encoders.video_codec import VideoCodec
from omnihuman.evaluation import drift
from omnihuman.evaluation.held_out import HeldOut, held_out_windows
from omnihuman.evaluation.mouth import MouthRegion, mouth_region, track_mouth
from omnihuman.evaluation.sound_tracks import envelope
from omnihuman.evaluation.statistics import Estimate, bootstrap_mean, correlation
from omnihuman.inference.activation import active_conditions
from omnihuman.inference.chaining import VideoInputs
from omnihuman.inference.generator import Generator, load_generator
from omnihuman.inference.long_video import VideoJob, generate_videos
from omnihuman.inference.speech_track import SpeechTrack
from omnihuman.media.video import read_frames
from omnihuman.media.write import write_video

mpl.use("Agg")
SEED = 7
MEASURES = drift.MEASURES | {"lips": "lips: correlation of mouth opening and loudness"}
MAX_LAG = 8


class ThroughFile:
    """A codec whose motion frames pass through an H.264 file before they are encoded again."""

    def __init__(self, codec: VideoCodec, fps: float, crf: int) -> None:
        self._codec, self._fps, self._crf = codec, fps, crf
        self.decode, self.decode_stream = codec.decode, codec.decode_stream

    def encode(self, video: Tensor) -> Tensor:
        """As the codec's; five frames are motion frames."""
        return self._codec.encode(self._reread(video) if video.shape[2] == NUM_MOTION_FRAMES else video)

    def _reread(self, video: Tensor) -> Tensor:
        pixels = ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "motion.mp4"
            write_video(path, pixels, self._fps, crf=self._crf)
            back = read_frames(path, fps=self._fps, short_side_pixels=min(pixels.shape[1:3])).pixels
        return (torch.from_numpy(back).float() / 127.5 - 1).permute(3, 0, 1, 2)[None]


@dataclass(frozen=True)
class FileChained(Generator):
    """A generator whose videos are chained through a file."""

    crf: int = 23

    def codec(self) -> VideoCodec:
        return ThroughFile(super().codec(), self.encoders.fps, self.crf)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Speaker:
    """A held-out person with what is to be said."""

    identity: str
    inputs: VideoInputs
    reference: np.ndarray  # float32 [H, W, 3] in 0..1
    mouth: MouthRegion
    face: drift.Box
    loudness: np.ndarray  # [F]


def speakers(generator: Generator, encoded: Path, count: int, seconds: float) -> list[Speaker]:
    """Different people of one size, each with sounds of the others."""
    windows = held_out_windows(encoded, "audio", 1000, SEED)
    sounds = [window.clip.sound.astype(np.float32) / 32767 for window in windows]
    chosen: dict[str, Speaker] = {}
    sizes: dict[tuple[int, ...], int] = {}
    for window in windows:
        sizes[window.clip.latents.shape[3:]] = sizes.get(window.clip.latents.shape[3:], 0) + 1
    size = max(sizes, key=sizes.__getitem__)
    for number, window in enumerate(windows):
        if window.identity in chosen or window.clip.latents.shape[3:] != size or len(chosen) == count:
            continue
        others = np.concatenate(sounds[number + 1 :] + sounds[:number])[: round(seconds * SAMPLE_RATE)]
        if speaker := _speaker(generator, window, Sound(others, SAMPLE_RATE)):
            chosen[window.identity] = speaker
    return list(chosen.values())


def _speaker(generator: Generator, window: HeldOut, sound: Sound) -> Speaker | None:
    clip, encoders = window.clip, generator.encoders
    latent = clip.references[window.reference].astype(np.float32)
    picture = generator.codec().decode(torch.from_numpy(latent)[None, :, None]).clamp(-1, 1)
    reference = ((picture[0, :, 0].permute(1, 2, 0) + 1) / 2).numpy()
    height, width = reference.shape[:2]
    keypoints = clip.keypoints[clip.reference_frames[window.reference]]
    mouth = mouth_region(keypoints, height, width)
    if mouth is None:
        return None
    frames = round(len(sound.samples) / SAMPLE_RATE * encoders.fps)
    inputs = VideoInputs(
        num_frames=frames,
        reference=latent,
        reference_keypoints=keypoints,
        text=clip.text.astype(np.float32),
        speech=SpeechTrack(generator.speech_encoder(), sound, frames, encoders.fps),
        keypoints=np.zeros((1, encoders.num_keypoints, 3), np.float32),
        active=active_conditions(audio=True, pose=False),
    )
    heard = envelope(sound.samples.astype(np.float64), frames, encoders.fps)
    return Speaker(window.identity, inputs, reference, mouth, drift.face_around(mouth, height, width), heard)


def measured(frames: np.ndarray, first: int, speaker: Speaker) -> dict[str, float]:
    """One window [n, H, W, 3] that begins at frame `first`."""
    opening = track_mouth(frames, speaker.mouth).opening
    lips = correlation(opening, speaker.loudness[first : first + len(opening)])
    return drift.measure_window(frames, speaker.reference, speaker.face) | {"lips": lips}


def best_lag(opening: np.ndarray, heard: np.ndarray) -> int:
    """By how many frames the mouth comes after the sound."""
    inner = opening[MAX_LAG:-MAX_LAG]
    found = [
        correlation(inner, heard[MAX_LAG - lag : len(heard) - MAX_LAG - lag]) for lag in range(-MAX_LAG, MAX_LAG + 1)
    ]
    return int(np.argmax(found)) - MAX_LAG


@dataclass(frozen=True)
class Result:
    """Of one way of chaining."""

    windows: dict[str, list[list[float]]]
    """By measure: for each person, each window."""
    slopes: dict[str, Estimate]
    """Change in a minute."""
    last: dict[str, Estimate]
    """Over the last quarter."""
    end_lags: list[int]
    """Frames by which the mouth comes after the sound in the last 15 s, for each person."""
    pictures: list[np.ndarray]
    """Of the first person, evenly spaced."""


def run(generator: Generator, config: Render, people: Sequence[Speaker], label: str) -> Result:
    """Renders and measures everyone in one batch."""
    fps = generator.encoders.fps
    size, total = round(drift.WINDOW_SECONDS * fps), people[0].inputs.num_frames
    waiting: list[list[np.ndarray]] = [[] for _ in people]
    found: list[list[dict[str, float]]] = [[] for _ in people]
    openings: list[list[np.ndarray]] = [[] for _ in people]
    kept, pictures = set(np.linspace(0, total - 1, 7).astype(int).tolist()), []
    jobs = [VideoJob(speaker.inputs, SEED + number) for number, speaker in enumerate(people)]
    with tqdm(total=total * len(people), desc=label, mininterval=20, unit="frame") as bar:
        for number, frames in generate_videos(generator, jobs, config, batch_size=len(jobs)):
            bar.update(len(frames))
            for frame in frames:
                done = len(found[number]) * size + len(waiting[number])
                waiting[number].append(frame)
                if number == 0 and done in kept:
                    pictures.append(frame)
                if len(waiting[number]) == size:
                    window = np.stack(waiting[number])
                    found[number].append(measured(window, done + 1 - size, people[number]))
                    openings[number].append(track_mouth(window, people[number].mouth).opening)
                    waiting[number].clear()
    names = [speaker.identity for speaker in people]
    windows = {name: [[part[name] for part in of] for of in found] for name in MEASURES}
    estimate = partial(bootstrap_mean, groups=names, confidence=0.95, num_resamples=2000, seed=SEED)
    slopes = {
        name: estimate(np.array([drift.slope_a_minute(np.array(of)) for of in windows[name]])) for name in MEASURES
    }
    quarter = max(1, len(found[0]) // 4)
    last = {name: estimate(np.array([np.mean(of[-quarter:]) for of in windows[name]])) for name in MEASURES}
    ends = [np.concatenate(of)[-round(15 * fps) :] for of in openings]
    covered = len(found[0]) * size
    lags = [best_lag(end, s.loudness[covered - len(end) : covered]) for end, s in zip(ends, people, strict=True)]
    return Result(windows, slopes, last, lags, pictures)


def plot(results: dict[str, Result], path: Path) -> None:
    """Each measure against time: mean over people, and its interval."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(14, 6), layout="constrained", sharex=True)
    for place, (name, title) in zip(axes.flat, MEASURES.items(), strict=False):
        for label, result in results.items():
            values = np.array(result.windows[name])
            seconds = (np.arange(values.shape[1]) + 0.5) * drift.WINDOW_SECONDS
            error = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
            (line,) = place.plot(seconds, values.mean(axis=0), label=label)
            place.fill_between(
                seconds, values.mean(0) - error, values.mean(0) + error, alpha=0.15, color=line.get_color()
            )
        place.set_title(title, fontsize=9)
        place.spines[["top", "right"]].set_visible(False)
    for place in axes[1]:
        place.set_xlabel("seconds")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def sheet(results: dict[str, Result], reference: np.ndarray, path: Path) -> None:
    """One row a way of chaining: the reference, then the first person at even distances."""
    rows = [np.concatenate([reference, *result.pictures], axis=1) for result in results.values()]
    pixels = (np.concatenate(rows) * 255).round().astype(np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels[..., ::-1], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))


def variants(generator: Generator, stream: Generator | None, file_crf: int) -> Iterator[tuple[str, Generator, Render]]:
    """Label, model and chaining of each curve."""
    yield "decoded frames (as in the paper)", generator, Render()
    yield "decoded frames, colour kept", generator, Render(keep_colour=0.5)
    yield "through a file", FileChained(generator.model, generator.encoders, generator.sampling, file_crf), Render()
    if stream is not None:
        yield "latent stream (trained for it)", stream, Render(chaining="latent_stream")
        yield "decoded frames, model of the stream", stream, Render()


def main(arguments: Iterable[str] | None = None) -> None:
    """Prints the figures as JSON and draws them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/3_pose"))
    parser.add_argument("--stream-model", type=Path, help="the same, trained with training.midstream_share")
    parser.add_argument("--encoded", type=Path, default=Path("data/encoded"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--file-crf", type=int, default=23)
    parser.add_argument("--output", type=Path, default=Path("reports/drift"))
    args = parser.parse_args(None if arguments is None else list(arguments))
    sampling: Sampling = load_params().sampling
    generator = load_generator(args.model, sampling)
    stream = load_generator(args.stream_model, sampling) if args.stream_model else None
    people = speakers(generator, args.encoded, args.people, args.seconds)
    args.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}
    for label, model, config in variants(generator, stream, args.file_crf):
        results[label] = run(model, config, people, label)
        plot(results, args.output / "drift.png")
        sheet(results, people[0].reference, args.output / "sheet.png")
        figures = {
            name: {key: {"per_minute": vars(of.slopes[key]), "last_quarter": vars(of.last[key])} for key in MEASURES}
            | {"end_lags": of.end_lags}
            for name, of in results.items()
        }
        report = {"machine": machine(torch.device("cpu")), "people": len(people), "seconds": args.seconds}
        text = json.dumps(rounded({**report, "results": figures}), indent=1)
        (args.output / "drift.json").write_text(text + "\n", encoding="utf-8")
    print((args.output / "drift.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
