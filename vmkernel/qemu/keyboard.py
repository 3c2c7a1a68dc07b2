"""A guest's keyboard: names of keys, a US layout, and pressing keys.

Codes are QEMU's QKeyCode (qapi/ui.json); users may write those names and a few common ones.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import Iterable, Sequence
from typing import Any

from vmkernel.qemu.session import Qmp

__all__ = ["Chord", "HOLD_S", "chord_of", "chords_of_text", "inject_nmi", "press"]

Chord = tuple[str, ...]
"""Codes that are held down together, modifiers first."""

HOLD_S = 0.02
"""How long a chord is held down, and the pause before the next."""

_MODIFIERS = {
    "alt": "alt",
    "alt_r": "alt_r",
    "ctrl": "ctrl",
    "ctrl_r": "ctrl_r",
    "meta_l": "meta_l",
    "meta_r": "meta_r",
    "shift": "shift",
    "shift_r": "shift_r",
    "altgr": "alt_r",
    "control": "ctrl",
    "meta": "meta_l",
    "super": "meta_l",
    "win": "meta_l",
    "windows": "meta_l",
}
_CODES = frozenset(
    [
        *string.ascii_lowercase,
        *string.digits,
        *(f"f{number}" for number in range(1, 13)),
        *(f"kp_{number}" for number in range(10)),
        *("kp_add", "kp_comma", "kp_decimal", "kp_divide", "kp_enter", "kp_equals"),
        *("kp_multiply", "kp_subtract"),
        *("apostrophe", "asterisk", "backslash", "bracket_left", "bracket_right", "comma", "dot"),
        *("equal", "grave_accent", "less", "minus", "semicolon", "slash", "spc"),
        *("backspace", "caps_lock", "compose", "delete", "down", "end", "esc", "help", "home"),
        *("insert", "left", "menu", "num_lock", "pause", "pgdn", "pgup", "power", "print", "ret"),
        *("right", "scroll_lock", "sleep", "stop", "sysrq", "tab", "up", "wake"),
        *("henkan", "hiragana", "katakanahiragana", "muhenkan", "ro", "yen"),
    ]
)
_NAMED = sorted(
    code for code in _CODES if len(code) > 1 and not (code[0] == "f" and code[1:].isdigit())
)
_SHOWN = 40
"""The length shown of a wrong name in a message."""
_ALIASES = {
    "del": "delete",
    "enter": "ret",
    "escape": "esc",
    "ins": "insert",
    "page_down": "pgdn",
    "page_up": "pgup",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "return": "ret",
    "space": "spc",
    "'": "apostrophe",
    "\\": "backslash",
    "[": "bracket_left",
    "]": "bracket_right",
    ",": "comma",
    ".": "dot",
    "=": "equal",
    "`": "grave_accent",
    ";": "semicolon",
    "/": "slash",
}
_TYPED: dict[str, Chord] = {
    " ": ("spc",),
    "\n": ("ret",),
    "\t": ("tab",),
    "-": ("minus",),
    **{character: (character,) for character in string.ascii_lowercase + string.digits},
    **{upper: ("shift", upper.lower()) for upper in string.ascii_uppercase},
    **{name: (code,) for name, code in _ALIASES.items() if len(name) == 1},
}
_SHIFTED = dict(zip('!@#$%^&*()_+{}|:"<>?~', "1234567890-=[]\\;',./`", strict=True))
_TYPED |= {upper: ("shift", *_TYPED[lower]) for upper, lower in _SHIFTED.items()}


def chord_of(name: str) -> Chord:
    """The codes of a key or of a chord such as `ctrl-alt-delete`.

    Modifiers come first and may be used alone. ValueError says what is wrong.
    """
    if name == "-":
        return ("minus",)
    *modifiers, key = name.lower().split("-")
    codes = []
    for each in modifiers:
        if each not in _MODIFIERS:
            raise ValueError(
                f"{each[:_SHOWN]!r} is not a modifier; modifiers are {', '.join(_MODIFIERS)}"
            )
        codes.append(_MODIFIERS[each])
    code = _MODIFIERS.get(key) or _ALIASES.get(key, key)
    if code not in _CODES and code not in _MODIFIERS:
        raise ValueError(f"there is no key {key[:_SHOWN]!r}{_instead(key)}")
    codes.append(code)
    if len(set(codes)) != len(codes):
        raise ValueError("a key is in it twice")
    return tuple(codes)


def _instead(key: str) -> str:
    """Names similar to a wrong one, or else all names."""
    import difflib

    near = difflib.get_close_matches(key[:_SHOWN], [*_NAMED, *_ALIASES, *_MODIFIERS], n=3)
    if near:
        return f"; {' or '.join(near)} may be meant"
    return f"; keys are a to z, 0 to 9, f1 to f12, {', '.join(_NAMED)}"


def chords_of_text(text: str) -> list[Chord]:
    """The keys that type a text on a US keyboard. ValueError for characters that aren't on it."""
    for character in text:
        if character not in _TYPED:
            raise ValueError(f"{character!r} is not on a US keyboard")
    return [_TYPED[character] for character in text]


async def press(qmp: Qmp, chords: Iterable[Chord]) -> None:
    """Press chords one after the other, at a pace that an old keyboard controller can handle."""
    for chord in chords:
        await _send(qmp, chord, down=True)
        try:
            await asyncio.sleep(HOLD_S)
        finally:
            await _send(qmp, chord[::-1], down=False)
        await asyncio.sleep(HOLD_S)


async def inject_nmi(qmp: Qmp) -> None:
    """A non-maskable interrupt for every vCPU, as from a machine's NMI button."""
    await qmp.execute("inject-nmi")


async def _send(qmp: Qmp, codes: Sequence[str], *, down: bool) -> None:
    events: list[dict[str, Any]] = [
        {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": code}}}
        for code in codes
    ]
    await qmp.execute("input-send-event", {"events": events})
