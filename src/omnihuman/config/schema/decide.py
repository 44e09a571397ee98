"""The policy that turns scores into eligibility per modality."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """One threshold on one scorer; a missing bound does not bind."""

    scorer: str
    modality: str
    """`base` (text and reference, and by inclusion audio and pose), `audio` or `pose`."""
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Decide:
    """All rules by name. A clip is eligible for a modality when every rule of it, and of `base`, passes."""

    rules: dict[str, Rule] = field(default_factory=dict)
