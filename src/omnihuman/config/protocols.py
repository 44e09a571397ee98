"""Reading the protocols of conf/protocol."""

from collections.abc import Iterator
from pathlib import Path

from omnihuman.config.compose import CONF, choose
from omnihuman.config.load import read_yaml
from omnihuman.config.schema.protocol import EvaluationProtocol
from omnihuman.config.strict import instantiate, names_of, validate
from omnihuman.errors import UserError

LAYOUTS = ("plain", "celebv_hq", "ravdess", "hdtf", "encoded")
DRIVERS = ("audio", "pose")
_CHAININGS = ("decoded_frames", "latent_stream")


def load_protocol(name: str, conf: Path = CONF) -> EvaluationProtocol:
    """A protocol by the name of its file.

    Raises:
        UserError: there is none of this name, or a key is unknown, of another type, or breaks a rule.
    """
    path = choose(conf / "protocol", name, "protocol")
    tree = read_yaml(path)
    validate(tree, str(path), EvaluationProtocol, known=tuple(names_of(EvaluationProtocol)))
    protocol = instantiate(EvaluationProtocol, tree, name)
    if problems := list(_problems(protocol)):
        raise UserError("\n".join(f"{path}: {problem}" for problem in problems))
    return protocol


def _problems(protocol: EvaluationProtocol) -> Iterator[str]:
    items, clips = protocol.items, protocol.clips
    if items.layout not in LAYOUTS:
        yield f"items.layout is {items.layout}, set it to one of {', '.join(LAYOUTS)}"
    if min(items.num_videos, items.num_people, clips.width, clips.height, clips.max_seconds) < 0:
        yield "a number of items, a side or a length is below 0; set it to 0 where any will do"
    if bool(clips.width) != bool(clips.height):
        yield f"clips.width is {clips.width} and clips.height {clips.height}; set both, or neither"
    if clips.width % 2 or clips.height % 2:
        yield f"clips are {clips.width} x {clips.height} pixels; H.264 needs even sides"
    if clips.fps <= 0:
        yield f"clips.fps is {clips.fps:g}, set it above 0"
    if clips.tolerance_frames < 0:
        yield f"clips.tolerance_frames is {clips.tolerance_frames}, set it to 0 or more"
    if not protocol.driven_by or set(protocol.driven_by) - set(DRIVERS):
        yield f"driven_by is {list(protocol.driven_by)}, name one or both of {', '.join(DRIVERS)}"
    if protocol.chaining not in _CHAININGS:
        yield f"chaining is {protocol.chaining}, set it to one of {', '.join(_CHAININGS)}"
    if len(set(protocol.metrics)) < len(protocol.metrics) or not protocol.metrics:
        yield f"metrics are {list(protocol.metrics)}; name at least one, and each once"
    if not 0 < protocol.confidence < 1:
        yield f"confidence is {protocol.confidence:g}, set it between 0 and 1"
