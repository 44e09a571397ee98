"""Nested settings and figures as one level of names."""

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(tree: Mapping[str, Any], separator: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of everything in a tree, e.g. `encode.fps` and 25.0; an empty section is a value itself."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, separator, f"{prefix}{key}{separator}")
        else:
            yield prefix + key, value
