"""Keys and chords by name, and what a US keyboard types."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import pytest

from tests.framework.running import on_loop
from vmkernel.qemu.keyboard import chord_of, chords_of_text, press


@pytest.mark.parametrize(
    ("name", "chord"),
    [
        ("a", ("a",)),
        ("F2", ("f2",)),
        ("ctrl-alt-delete", ("ctrl", "alt", "delete")),
        ("Ctrl-Alt-Del", ("ctrl", "alt", "delete")),
        ("windows-r", ("meta_l", "r")),
        ("alt-f4", ("alt", "f4")),
        ("-", ("minus",)),
        ("minus", ("minus",)),
        ("shift", ("shift",)),
        ("page_up", ("pgup",)),
        ("/", ("slash",)),
        ("alt-sysrq", ("alt", "sysrq")),
    ],
)
def test_chords(name: str, chord: tuple[str, ...]) -> None:
    assert chord_of(name) == chord


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no key ''"),
        ("anykey", "no key 'anykey'"),
        ("a-b", "'a' is not a modifier"),
        ("ctrl-", "no key ''"),
        ("ctrl--", "is not a modifier"),
        ("ctrl-ctrl", "twice"),
        ("control-ctrl-a", "twice"),
        ("\u00e4", "no key"),
    ],
)
def test_what_is_no_chord(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        chord_of(name)


def test_every_printable_character_can_be_typed() -> None:
    text = string.ascii_letters + string.digits + string.punctuation + " \n\t"
    chords = chords_of_text(text)
    assert len(set(chords)) == len(text)
    assert chords_of_text("aA!/?") == [
        ("a",),
        ("shift", "a"),
        ("shift", "1"),
        ("slash",),
        ("shift", "slash"),
    ]
    with pytest.raises(ValueError, match="US keyboard"):
        chords_of_text("\u00e4")


class _Keyboard:
    """Notes what QEMU is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, bool]] = []

    async def execute(self, command: str, arguments: Mapping[str, Any]) -> None:
        assert command == "input-send-event"
        for event in arguments["events"]:
            self.events.append((event["data"]["key"]["data"], event["data"]["down"]))


@on_loop
async def test_a_chord_is_released_in_the_opposite_order() -> None:
    keyboard = _Keyboard()
    await press(keyboard, [("ctrl", "c"), ("x",)])  # type: ignore[arg-type]
    assert keyboard.events == [
        ("ctrl", True),
        ("c", True),
        ("c", False),
        ("ctrl", False),
        ("x", True),
        ("x", False),
    ]
