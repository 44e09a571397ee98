"""Sync-C and Sync-D by SyncNet's published weights.

Everything is joonson/syncnet_python's but the box of the face, which is not S3FD's: figures lie near those of the
published pipeline, and are not called calibrated.
"""

from pathlib import Path

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.data.scorers.syncnet import MIN_FACE_PIXELS, MIN_FRAMES, face_crops, hindrance
from omnihuman.encoders.syncnet import load_syncnet, measure_sync
from omnihuman.evaluation.extractors.faces import FOUND_BY, content_of
from omnihuman.evaluation.extractors.part import Part
from omnihuman.evaluation.metrics.measure import Extractor, Shown

OPTION = "evaluate.extractors.syncnet_weights"


def sync_part(config: Extractors, device: str) -> Part[tuple[float, float] | None]:
    """Confidence and distance; None where the pipeline's own conditions are not met.

    Raises:
        UserError: the weights are missing or not the pinned ones.
    """
    network = load_syncnet(Path(config.syncnet_weights), config.syncnet_sha256, OPTION).to(device)

    def measure(shown: Shown) -> tuple[float, float] | None:
        content = content_of(shown)
        if content.sound is None or hindrance(content):
            return None
        found = measure_sync(network, face_crops(content.frames.pixels, content.face), content.sound.samples)
        return found.confidence, found.distance

    told = f"25 fps, {MIN_FRAMES} frames, a face of {MIN_FACE_PIXELS} pixels by {FOUND_BY} (not S3FD)"
    return Part(measure, Extractor("SyncNet v2 (joonson/syncnet_python)", told, config.syncnet_sha256))
