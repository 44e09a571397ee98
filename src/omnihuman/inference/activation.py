"""Which conditions are on in a video (OmniHuman-1, sec. 3.4)."""

import logging
from collections.abc import Sequence

from omnihuman.conditions.assembly import ActiveConditions
from omnihuman.errors import UserError

log = logging.getLogger(__name__)
CHOOSABLE = ("text", "reference", "audio", "pose")
"""What may be named to override the rules; motion frames follow from a video's length."""


def active_conditions(audio: bool, pose: bool, chosen: Sequence[str] | None = None) -> ActiveConditions:
    """The paper's rules: text and the reference always; sound and pose where they are given.

    So sound alone activates all but pose, sound with pose activates all, and pose alone leaves sound off. A driving
    video gives its pose, and its sound where that is asked for.

    Args:
        audio, pose: whether the request holds them.
        chosen: the conditions to activate instead, of `CHOOSABLE`; None follows the rules.

    Returns:
        The conditions of a first segment, which has no motion frames.

    Raises:
        UserError: a chosen condition is unknown or not given.
    """
    if chosen is None:
        return ActiveConditions(text=True, reference=True, audio=audio, pose=pose, motion=False)
    if unknown := [name for name in chosen if name not in CHOOSABLE]:
        raise UserError(f"condition {unknown[0]!r} is unknown; choose among {', '.join(CHOOSABLE)}")
    for name, given in (("audio", audio), ("pose", pose)):
        if name in chosen and not given:
            raise UserError(f"the condition {name} is chosen, but nothing is given for it: give --{name} or --video")
    return ActiveConditions(**{name: name in chosen for name in CHOOSABLE}, motion=False)


def warn_of_untrained(active: ActiveConditions, modalities: tuple[str, ...]) -> None:
    """Says which active conditions a model has never seen, and so will not follow."""
    for name, on in (("audio", active.audio), ("pose", active.pose)):
        if on and name not in modalities:
            log.warning("the model was never trained on %s: it will not steer the video", name)
