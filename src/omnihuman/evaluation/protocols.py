"""The identity of a protocol: two figures may stand beside one another only where it is the same."""

from collections.abc import Mapping
from dataclasses import asdict

from omnihuman.config.schema.protocol import EvaluationProtocol
from omnihuman.evaluation.metrics.measure import Extractor
from omnihuman.storage.work import content_key


def protocol_hash(protocol: EvaluationProtocol, items_sha256: str, extractors: Mapping[str, Extractor]) -> str:
    """Of what was asked, of whom, and by which instruments; of no path, machine or model.

    Args:
        items_sha256: of the items' names and files.
        extractors: by metric; name, preprocessing and weights of each count.
    """
    instruments = {name: asdict(extractor) for name, extractor in sorted(extractors.items())}
    return content_key(protocol=asdict(protocol), items=items_sha256, extractors=instruments)
