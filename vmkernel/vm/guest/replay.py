"""A serial line's scrollback as it may be shown again: without what makes a terminal answer.

A guest's program asks the terminal for its kind, its size or its cursor's place, and the terminal
answers as if the answer were typed. In a scrollback the question is an old one, whose answer would
be typed into whatever runs now. There are too many kinds of questions to list them, so this lists
what has no answer (the display's own controls) and leaves out all other control sequences.
(ECMA-48; "XTerm Control Sequences"; the VT520 manual. Terminals take controls of one octet (C1) in
UTF-8, too.)

ground --ESC [, U+009B--> CSI --final--> kept or left out
   |----ESC ], P, X, ^, _--> string --BEL, ST--> a clean OSC of a harmless number is kept
   |----other ESC--> kept, but for ESC Z (DECID)
"""

from __future__ import annotations

import re

__all__ = ["Replay"]

_ESC = 0x1B
_CANCEL = b"\x18\x1a"
_HELD_BYTES = 4096
"""How much of an unfinished sequence is kept; the rest of a longer one is dropped."""
_WIDE = (
    rb"[\xc3-\xdf][\x80-\xbf]|\xc2[\xa0-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_PLAIN = re.compile(rb"(?:[\x00-\x04\x06-\x1a\x1c-\x7f]|" + _WIDE + rb")+")
"""Text and controls that no terminal answers: all but ENQ, ESC and C1."""
_CUT = re.compile(rb"(?:\xc2|[\xc3-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
"""An incomplete UTF-8 character."""
_CSI = re.compile(rb"(?:\x1b\[|\xc2?\x9b)([\x00-\x17\x19\x1c-\x3f\x7f]*)")
_STRING = re.compile(rb"(?:\x1b([\]PX^_])|\xc2?([\x90\x98\x9d-\x9f]))")
_IN_STRING = re.compile(rb"(?:[\x00-\x06\x08-\x17\x19\x1c-\x7f]|" + _WIDE + rb")*")
_STRING_END = re.compile(rb"\x07|\x1b\\|\xc2?\x9c")
_OSC = re.compile(rb"(?:0|1|2|8);(?:[\x20-\x3e\x40-\x7e]|" + _WIDE + rb")*")
"""Titles and links, without `?`, which asks."""
_ESCAPE = re.compile(rb"\x1b[\x20-\x2f]*[\x30-\x7e]")

_SILENT = {
    b"": b"@ABCDEFGHIJKLMPSTXZ`abdefghjklmrsu",
    b"?": b"JKhlrs",
    b">": b"mu",
    b"=": b"u",
    b"<": b"u",
}
"""The last octets of CSI sequences without an answer, by their private prefix."""
_SILENT_WITH = {b" q", b'"q', b"!p", b"#{", b"#}"}
"""The same, of sequences with an intermediate octet."""
_TALKING_MODES = {b"1004", b"2031", b"2048"}
"""Private modes that make a terminal report its focus, colours or size, some at once."""


class Replay:
    """Filters a stream in pieces; `feed` it until it is `idle`, then nothing needs it any more."""

    def __init__(self) -> None:
        self._held = b""
        self._skipping = False

    @property
    def idle(self) -> bool:
        """True between sequences."""
        return not self._held and not self._skipping

    def feed(self, data: bytes) -> bytes:
        """The next piece, without what makes a terminal answer; an unfinished end is held back."""
        data, self._held = self._held + data, b""
        out = bytearray()
        at = 0
        while at < len(data):
            if self._skipping:
                at = self._string_end(data, at)
                continue
            if plain := _PLAIN.match(data, at):
                out += plain[0]
                at = plain.end()
                continue
            taken = self._sequence(data, at, out)
            if taken is None:
                if len(data) - at > _HELD_BYTES:
                    self._skipping = _STRING.match(data, at) is not None
                else:
                    self._held = data[at:]
                break
            at = taken
        return bytes(out)

    def _sequence(self, data: bytes, at: int, out: bytearray) -> int | None:
        """Read the sequence that begins here; returns its end, or None if it is incomplete."""
        if _cut_off(data, at):
            return None
        if begun := _CSI.match(data, at):
            return _control(data, begun, out)
        if begun := _STRING.match(data, at):
            return _string(data, begun, out)
        if data[at] != _ESC:
            return at + (2 if data[at] == 0xC2 else 1)  # ENQ, another C1, or no UTF-8
        escape = _ESCAPE.match(data, at)
        if escape is None:
            unfinished = re.compile(rb"\x1b[\x20-\x2f]*\Z").match(data, at)
            return None if unfinished else at + 1
        if escape[0] != b"\x1bZ":
            out += escape[0]
        return escape.end()

    def _string_end(self, data: bytes, at: int) -> int:
        end = _IN_STRING.match(data, at)
        assert end is not None
        if end.end() < len(data):
            self._skipping = False
            ended = _STRING_END.match(data, end.end())
            return ended.end() if ended else end.end()
        return len(data)


def _cut_off(data: bytes, at: int) -> bool:
    """True if the rest is the beginning of a character or of an escape sequence."""
    return _CUT.match(data, at) is not None or (data[at] == _ESC and at == len(data) - 1)


def _control(data: bytes, begun: re.Match[bytes], out: bytearray) -> int | None:
    """A CSI sequence; controls inside it act at once, as in a terminal."""
    if begun.end() == len(data):
        return None
    final = data[begun.end()]
    inside = begun[1]
    out += bytes(octet for octet in inside if octet < 0x20 and octet != 0x05)
    if not 0x40 <= final <= 0x7E:  # given up: cancelled, or another sequence begins
        return begun.end() + (final in _CANCEL)
    words = bytes(octet for octet in inside if 0x20 <= octet < 0x7F)
    prefix, parameters, middle = re.fullmatch(  # type: ignore[union-attr]
        rb"([\x3c-\x3f]?)([\x30-\x3f]*)(.*)", words, re.S
    ).groups()
    if middle:
        if not prefix and middle + bytes([final]) in _SILENT_WITH:
            out += b"\x1b[" + words + bytes([final])
    elif final in _SILENT.get(prefix, b""):
        kept = [mode for mode in parameters.split(b";") if mode not in _TALKING_MODES]
        if prefix != b"?" or kept or not parameters:
            chosen = b";".join(kept) if prefix == b"?" else parameters
            out += b"\x1b[" + prefix + chosen + bytes([final])
    return begun.end() + 1


def _string(data: bytes, begun: re.Match[bytes], out: bytearray) -> int | None:
    """OSC, DCS, SOS, PM, APC: only a clean OSC is kept."""
    body = _IN_STRING.match(data, begun.end())
    assert body is not None
    if body.end() == len(data) or _cut_off(data, body.end()):
        return None
    ended = _STRING_END.match(data, body.end())
    is_osc = begun[1] == b"]" or begun[2] == b"\x9d"
    if ended is None:
        # Cancelled, or another sequence begins; BEL alone doesn't end the others.
        return body.end() + (data[body.end()] in _CANCEL)
    if is_osc and _OSC.fullmatch(body[0]):
        out += b"\x1b]" + body[0] + b"\x1b\\"
    return ended.end()
