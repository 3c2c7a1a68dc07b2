"""Text from outside, and the characters that must not reach a terminal or a log.

Users' input is refused if it contains such characters: the patterns are in the records. Text from
guests, programs and hardware is cleaned where it enters. What is printed or logged is cleaned
again, as the last line of defence. It imports nothing of Mica, so that all of it can use it.
"""

from __future__ import annotations

import logging
import re

__all__ = [
    "CONTROL_CHARACTERS",
    "CleanFormatter",
    "PRINTABLE",
    "PRINTABLE_LINES",
    "PRINTABLE_WITH_TABS",
    "clean",
    "clean_lines",
    "escape_in_json",
    "one_line",
]

_BIDI = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Bidirectional controls (Unicode's UAX #9), and the separators of lines and paragraphs."""
CONTROL_CHARACTERS = rf"\x00-\x1f\x7f-\x9f{_BIDI}"
"""C0, DEL, C1 and the above, as the inside of a character class. Every escape sequence of a
terminal begins with one of them."""

PRINTABLE = rf"^[^{CONTROL_CHARACTERS}]*$(?!\n)"
"""One line of text."""
PRINTABLE_LINES = rf"^[^\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}]*$(?!\n)"
"""Text with line feeds and tabs."""
PRINTABLE_WITH_TABS = rf"^[^\x00-\x08\x0a-\x1f\x7f-\x9f{_BIDI}]*$(?!\n)"
_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_UNSAFE = re.compile(rf"[{CONTROL_CHARACTERS}\ud800-\udfff]+")
_UNSAFE_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\ud800-\udfff]+")
# Python makes lone surrogates of octets that are no UTF-8; they can't be encoded again.


def clean(value: object, limit: int = 256) -> str:
    """`value` on one line, without such characters, cut to `limit` characters; empty if it isn't a
    string.
    """
    if not isinstance(value, str):
        return ""
    return one_line(value[: 4 * limit]).strip()[:limit]


def escape_in_json(text: str) -> str:
    """JSON text with such characters inside its strings written as escapes."""
    return _UNSAFE_IN_LINES.sub(
        lambda found: "".join(f"\\u{ord(character):04x}" for character in found[0]), text
    )


def one_line(text: str) -> str:
    """`text` on one line, without such characters, with its blanks and of any length."""
    return _UNSAFE.sub("", _BREAKS.sub(" ", text))


def clean_lines(text: str) -> str:
    """The same for text of several lines, of any length, with its line feeds and tabs."""
    return _UNSAFE_IN_LINES.sub("", text)


class CleanFormatter(logging.Formatter):
    """Log lines that can't write to a terminal, or look like another's: tracebacks are the only
    messages of several lines."""

    def format(self, record: logging.LogRecord) -> str:
        return clean_lines(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        record.message = one_line(record.message)
        return super().formatMessage(record)
