"""The rendered sample that closes a run: a held-out person speaks with the sound of a held-out clip."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from omnihuman.config.load import load_params
from omnihuman.data.manifest import SOURCES_TABLE, read_table, source_path
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.inference.generator import load_generator
from omnihuman.inference.provenance import ModelIdentity
from omnihuman.inference.render import render
from omnihuman.inference.request import RenderRequest
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.pipeline.release import Candidate
from omnihuman.storage.files import publish

RENDERS = Path("renders")
_READING = Limits(deadline_seconds=60.0, memory_megabytes=4096)
_SAMPLE_SECONDS = 6.0
_SHORT_SIDE_PIXELS = 256


def render_sample(version: Candidate | None) -> Path | None:
    """Renders from a registered version, or from the last trained stage; None where no held-out clip has sound."""
    params = load_params()
    pair = _held_out_pair()
    if pair is None:
        return None
    image, sound, video = RENDERS / "demo.png", RENDERS / "demo.wav", RENDERS / "demo.mp4"
    _save_inputs(*pair, image, sound)
    request = RenderRequest(image=image, audio=sound, output=video)

    def progress(finished: int, total: int) -> None:
        if finished == total:
            print(f"rendered {total} segments to {video}", file=sys.stderr)

    folder = version.folder if version else Path("models") / list(params.stages)[-1]
    generator = load_generator(folder, params.sampling)
    model = ModelIdentity(version.name, version.version, generator.sha256) if version else None
    render(request, generator, params.render, progress, model)
    return video


@dataclass(frozen=True)
class _Clip:
    """Where a clip lies; its file may show nothing before it begins."""

    path: Path
    start_seconds: float
    end_seconds: float


def _held_out_pair() -> tuple[_Clip, _Clip] | None:
    """Clips that give the picture and the sound, of two held-out people where there are two."""
    folder = Path("data/sources")
    sources = read_table(folder / SOURCES_TABLE).drop(columns=["status", "error"])
    clips = read_table(Path("data/clips.parquet")).query("status == 'ok'").merge(sources, on="source_id")
    held_out = clips[(clips["split"] == "test") & (clips["audio_codec"] != "")]
    decisions = read_table(Path("data/decisions.parquet")).query("modality == 'audio' and eligible")
    speaking = held_out[held_out["clip_id"].isin(decisions["clip_id"])]
    chosen = (speaking if len(speaking) else held_out).to_dict("records")
    if not chosen:
        return None
    first, last = (
        _Clip(source_path(folder, row["path"]), row["start_seconds"], row["end_seconds"])
        for row in (chosen[0], chosen[-1])
    )
    return first, last


def _save_inputs(picture_from: _Clip, sound_from: _Clip, image: Path, sound: Path) -> None:
    first, start = picture_from.start_seconds, sound_from.start_seconds
    first_frame = partial(
        read_frames, fps=25.0, short_side_pixels=_SHORT_SIDE_PIXELS, start_seconds=first, end_seconds=first + 0.2
    )
    end = min(sound_from.end_seconds, start + _SAMPLE_SECONDS)
    some_sound = partial(read_sound, sample_rate=SAMPLE_RATE, start_seconds=start, end_seconds=end)
    (picture,) = run_guarded(first_frame, [picture_from.path], _READING, "")
    (speech,) = run_guarded(some_sound, [sound_from.path], _READING, "")
    if picture.value is None or speech.value is None:
        raise RuntimeError(f"a clip that was scored cannot be read again: {picture.error or speech.error}")
    with publish(image) as temporary:
        Image.fromarray(picture.value.pixels[0]).save(temporary)
    with publish(sound) as temporary:
        wavfile.write(temporary, SAMPLE_RATE, np.round(np.clip(speech.value.samples, -1, 1) * 32767).astype(np.int16))
