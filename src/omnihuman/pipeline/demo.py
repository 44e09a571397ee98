"""From a profile to a rendered sample and a table of figures in one call."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from omnihuman.config.compose import compose, dump
from omnihuman.config.load import PARAMS, load_params
from omnihuman.data.manifest import SOURCES_TABLE, read_table, source_path
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.inference.render import RenderRequest, render
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.pipeline.graph import repro
from omnihuman.pipeline.summary import summary
from omnihuman.storage.files import publish

RENDERS = Path("renders")
_READING = Limits(deadline_seconds=60.0, memory_megabytes=4096)
_SAMPLE_SECONDS = 6.0
_SHORT_SIDE_PIXELS = 256


def demo(profile: str, overrides: Sequence[str]) -> int:
    """Composes params.yaml, runs what is stale of the graph in the current directory, renders a held-out person.

    Returns:
        The exit code: that of a failed step, else 0.

    Raises:
        UserError: the configuration is wrong; params.yaml stays as it was.
    """
    text = dump(compose(profile, overrides))
    if not PARAMS.is_file() or PARAMS.read_text(encoding="utf-8") != text:
        with publish(PARAMS) as temporary:
            temporary.write_text(text, encoding="utf-8")
    code = repro(Path.cwd())
    if code:
        return code
    rendered = _render_sample()
    print(summary(Path("reports"), Path("models"), rendered))
    return 0


def _render_sample() -> Path | None:
    """Renders a held-out person speaking with the sound of a held-out clip; None where no clip has sound."""
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

    render(request, Path("models") / list(params.stages)[-1], params.sampling, params.render, progress)
    return video


def _held_out_pair() -> tuple[Path, Path] | None:
    """Videos that give the picture and the sound, of two held-out people where there are two."""
    folder = Path("data/sources")
    table = read_table(folder / SOURCES_TABLE)
    held_out = table[(table["status"] == "ok") & (table["split"] == "test") & (table["audio_codec"] != "")]
    decisions = read_table(Path("data/decisions.parquet")).query("modality == 'audio' and eligible")
    clips = read_table(Path("data/clips.parquet"))
    speaking = held_out[held_out["source_id"].isin(clips[clips["clip_id"].isin(decisions["clip_id"])]["source_id"])]
    chosen = speaking if len(speaking) else held_out
    if chosen.empty:
        return None
    return source_path(folder, chosen.iloc[0]["path"]), source_path(folder, chosen.iloc[-1]["path"])


def _save_inputs(picture_from: Path, sound_from: Path, image: Path, sound: Path) -> None:
    first_frame = partial(read_frames, fps=25.0, short_side_pixels=_SHORT_SIDE_PIXELS, end_seconds=0.2)
    whole_sound = partial(read_sound, sample_rate=SAMPLE_RATE, end_seconds=_SAMPLE_SECONDS)
    (picture,) = run_guarded(first_frame, [picture_from], _READING, "")
    (speech,) = run_guarded(whole_sound, [sound_from], _READING, "")
    if picture.value is None or speech.value is None:
        raise RuntimeError(f"a clip that was scored cannot be read again: {picture.error or speech.error}")
    with publish(image) as temporary:
        Image.fromarray(picture.value.pixels[0]).save(temporary)
    with publish(sound) as temporary:
        wavfile.write(temporary, SAMPLE_RATE, np.round(np.clip(speech.value.samples, -1, 1) * 32767).astype(np.int16))
