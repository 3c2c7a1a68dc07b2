"""Words that no text for users has a use for: another one is always clearer."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["NEVER", "never_in"]

NEVER = (
    *("anew", "nobody", "somebody", "whoever", "tells", "told", "lies", "stands"),
    *("stand still", "goes on", "go on", "let go", "lets go"),
)
"""The actor, "is", "continues", "releases" or the glossary's term is clearer."""


def never_in(text: str, words: Iterable[str] = NEVER) -> list[str]:
    """Which of the words a text has."""
    return [word for word in words if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)]
