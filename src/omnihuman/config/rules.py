"""What the checks of several sections share."""

from collections.abc import Iterator
from typing import Any

LATENT_PIXELS = 8
"""Every video codec here maps 8 x 8 pixels to one latent position."""


def check_choices(section: str, config: Any, choices: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """One line per key of a section whose value is none of those that it knows."""
    for key, known in choices.items():
        if (value := getattr(config, key)) not in known:
            yield f"{section}.{key}: unknown '{value}', expected one of {', '.join(known)}"
