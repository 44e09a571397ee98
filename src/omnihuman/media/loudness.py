"""Loudness of sound as people hear it (ITU-R BS.1770), and bringing sound to one loudness."""

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from omnihuman.batch import Sound

BLOCK_SECONDS = 0.4
"""BS.1770's blocks; what is shorter is repeated to one."""
SILENCE_LUFS = -60.0
"""Below it a sound is silence: raised to the loudness of speech, its noise would be."""
_NOTHING_HEARD_LUFS = -70.0
"""What FFmpeg says where every block is below the standard's absolute gate."""
_PUSHED_SAMPLES = 16384


def loudness(sound: Sound) -> float:
    """Integrated loudness in LUFS of one channel, by FFmpeg's `ebur128` in passing; -inf where nothing is heard."""
    samples, rate = sound.samples, sound.sample_rate
    if not len(samples):
        return -np.inf
    if len(samples) < (shortest := int(np.ceil(BLOCK_SECONDS * rate)) + 1):
        samples = np.resize(samples, shortest)
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono", time_base=Fraction(1, rate))
    meter = graph.add("ebur128", "metadata=1:framelog=quiet")
    source.link_to(meter)
    meter.link_to(graph.add("abuffersink"))
    graph.configure()
    measured = _NOTHING_HEARD_LUFS
    for start in range(0, len(samples), _PUSHED_SAMPLES):
        part = np.ascontiguousarray(samples[None, start : start + _PUSHED_SAMPLES], np.float32)
        block = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
        block.sample_rate, block.pts = rate, start
        graph.push(block)
        measured = _last_reading(graph, measured)
    graph.push(None)
    measured = _last_reading(graph, measured)
    return measured if measured > _NOTHING_HEARD_LUFS else -np.inf


def _last_reading(graph: Graph, before: float) -> float:
    """The integrated loudness up to the newest frame that the graph gives; `before` where it gives none."""
    while True:
        try:
            before = float(graph.pull().metadata.get("lavfi.r128.I", before))
        except (BlockingIOError, EOFError):
            return before


def at_loudness(sound: Sound, target_lufs: float) -> tuple[Sound, float]:
    """The sound, scaled to a loudness, and the loudness that it had.

    What is below `SILENCE_LUFS` stays as it is. Samples may pass 1: nobody writes this sound.
    """
    measured = loudness(sound)
    if measured < SILENCE_LUFS:
        return sound, measured
    scaled = (sound.samples * np.float32(10 ** ((target_lufs - measured) / 20))).astype(np.float32, copy=False)
    return Sound(scaled, sound.sample_rate), measured
