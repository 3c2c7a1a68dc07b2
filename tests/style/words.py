"""Words that texts have no use for, because another one is always clearer: the one list of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["IDIOMS", "NEVER", "NEVER_IN_HELP", "idioms_in", "never_in"]

NEVER = (
    *("anew", "nobody", "somebody", "whoever", "tells", "told", "lies", "stands"),
    *("stand still", "goes on", "go on", "let go", "lets go", "of itself", "in the place of"),
    *("where there is", "where there are", "where none"),
)
"""In what users read. The actor, "is", "continues", "releases", "if" or the glossary's term
(vmkernel/README.md) is clearer."""
NEVER_IN_HELP = ("virtual machine", "virtual machines", "network card", "where it")
"""In help, besides: it uses the glossary's short terms, and names no places."""
IDIOMS = (
    r"\b(?:anew|[Nn]obody|[Ss]omebody|stands still|stand still)\b",
    r"\b(?:[Ll]ets?|letting) go of\b",
    r"\b[Ww]hat lies\b|\blies there\b",
    # A condition: of a place one says "where" after a noun for it.
    r"\b(?:True|False|None|[A-Z][A-Za-z]+Error) where\b",
    r"`(?:conflict|in-use|invalid|unavailable|not-found|timed-out|unsupported)` where\b",
)
"""In docstrings, as regular expressions."""


def never_in(text: str, words: Iterable[str] = NEVER) -> list[str]:
    """Which of the words a text has."""
    return [word for word in words if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)]


def idioms_in(docstring: str) -> list[str]:
    """The idioms in a docstring, as they are written there."""
    text = " ".join(docstring.split())
    return [match[0] for idiom in IDIOMS for match in re.finditer(idiom, text)]
