"""Video of any length, segment after segment."""

from collections.abc import Iterator

import numpy as np

from omnihuman.inference.chaining import DecodedFramesChain, VideoInputs
from omnihuman.inference.generator import Generator


def generate_video(generator: Generator, inputs: VideoInputs, seed: int) -> Iterator[np.ndarray]:
    """Yields the new frames of each segment, float32 [n, H, W, 3] in 0..1, in all exactly `inputs.num_frames`.

    Each segment has noise of its own.
    """
    chain = DecodedFramesChain(inputs, generator.codec(), generator.encoders)
    while chain.finished < chain.num_segments:
        key = (seed, "segment", chain.finished)
        yield chain.accept(generator.segment(chain.conditions(), chain.num_latents, [key]))
