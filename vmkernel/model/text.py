"""Text that others chose, and what it may not bring into a terminal or a log.

What users send is refused if it holds such characters: the patterns stand in the records. What
guests, programs and hardware say is cleaned where it enters.
"""

from __future__ import annotations

import re

__all__ = ["CONTROL_CHARACTERS", "PRINTABLE", "PRINTABLE_LINES", "clean"]

_BIDI = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Bidirectional controls (Unicode's UAX #9), and the separators of lines and paragraphs."""
CONTROL_CHARACTERS = rf"\x00-\x1f\x7f-\x9f{_BIDI}"
"""C0, DEL, C1 and the above, as the inside of a character class. Every escape sequence of a
terminal begins with one of them."""

PRINTABLE = rf"^[^{CONTROL_CHARACTERS}]*$(?!\n)"
"""One line of text."""
PRINTABLE_LINES = rf"^[^\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}]*$(?!\n)"
"""Text with line feeds and tabs."""

_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_UNSAFE = re.compile(rf"[{CONTROL_CHARACTERS}\ud800-\udfff]+")
# Python makes lone surrogates of octets that are no UTF-8; they can't be encoded again.


def clean(value: object, limit: int = 256) -> str:
    """`value` on one line, without such characters, cut to `limit` characters; what is no string
    is empty."""
    if not isinstance(value, str):
        return ""
    return _UNSAFE.sub("", _BREAKS.sub(" ", value[: 4 * limit])).strip()[:limit]
