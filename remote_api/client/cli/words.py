"""A host's messages in the words of the command line: options instead of fields, sizes with units.

The host uses the API's words for all clients; only this module knows what commands call them.
"""

from __future__ import annotations

import re

from remote_api.client.cli.session import bytes_text

__all__ = ["WORDS", "in_words_of_the_command"]

_LEAST_SIZE = 1 << 16
"""Smaller numbers are shown as they are: they may be counts, and are readable."""
_NUMBER = re.compile(r"(?<![\w.:/'-])(\d{5,})( bytes)?(?![\w'-]|\.\d)")
_POINTER = re.compile(r"(?<![\w/])/spec/([\w.~-]+(?:/[\w.~-]+)*)")
WORDS = (
    (re.compile(r"^(VM ([\w-]+) is .*); start it first"), r"\1; start it with `mica vm start \2`"),
    (
        re.compile(r"^(VM ([\w-]+) is .*); resume it first"),
        r"\1; resume it with `mica vm resume \2`",
    ),
    (re.compile(r"^(VM ([\w-]+) is .*); stop it first"), r"\1; stop it with `mica vm stop \2`"),
    (
        re.compile(r"^(VM ([\w-]+) is .*); discard its state first"),
        r"\1; discard its memory with `mica vm discard-state \2`",
    ),
    (re.compile(r"\bset `?allow_shrink\b`?"), "give --allow-shrink"),
    (re.compile(r"\bby `best_effort`"), "by --quiesce-if-possible"),
    (re.compile(r"\bwith `?take_over\b`?"), "with --take-over"),
    (re.compile(r"\bgive its id in `?wipe_serials\b`?"), "give its ID with --wipe"),
    (re.compile(r"\b`?wipe_serial\b`?"), "--serial"),
    (re.compile(r"\b`?critical_percent\b`?"), "--critical"),
    (re.compile(r"\b`?expires_at\b`?"), "--expires-at"),
    (re.compile(r"(?<!\.)`?\bmax_bytes\b`?"), "--max-size"),
    (re.compile(r"\bset `template: (true|false)`"), r"run `mica vm set VM template=\1`"),
    (
        re.compile(r"\bpower it off( to force it)?(?=[.;]|$)"),
        "power it off with `mica vm stop VM --force`",
    ),
)


def in_words_of_the_command(text: str) -> str:
    """One message, as a command shows it."""
    for pattern, words in WORDS:
        text = pattern.sub(words, text)
    text = _POINTER.sub(lambda match: match[1].replace("/", "."), text)
    if re.search(r"bytes\b", text):
        text = _NUMBER.sub(_sized, text)
    return text


def _sized(match: re.Match[str]) -> str:
    count = int(match[1])
    return match[0] if count < _LEAST_SIZE else bytes_text(count)
