"""QEMU's argument list under construction: typed values in, correctly quoted words out.

Options that take JSON (`-device`, `-blockdev`, `-object`, `-netdev`) are always given as JSON, so
that no value needs quoting. The few that don't are written as `key=value` with doubled commas.

The JSON of those four is also what QMP's commands take: what is built for a command line can be
plugged into a running machine, by `commands`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Arguments", "Command", "NULL", "Value", "keyval"]

NULL = object()
"""A JSON null; None would omit the key."""

Value = str | int | bool

Command = tuple[str, dict[str, Any]]
"""A QMP command and its arguments."""

_COMMANDS = {
    "device": "device_add",
    "blockdev": "blockdev-add",
    "object": "object-add",
    "netdev": "netdev_add",
}


def keyval(*positional: str, **values: Value | None) -> str:
    """`a,key=value,…` in QEMU's own syntax; None leaves a key out, `_` in keys becomes `-`."""
    parts = [text.replace(",", ",,") for text in positional]
    for key, value in values.items():
        if value is None:
            continue
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        parts.append(f"{key.replace('_', '-')}={text.replace(',', ',,')}")
    return ",".join(parts)


class Arguments:
    """The options after the program's name, in order."""

    def __init__(self) -> None:
        self._options: list[tuple[str, str | dict[str, Any] | None]] = []

    def words(self) -> list[str]:
        """The options as command-line arguments."""
        words = []
        for name, value in self._options:
            words.append(f"-{name}")
            if isinstance(value, dict):
                words.append(json.dumps(value, separators=(",", ":")))
            elif value is not None:
                words.append(value)
        return words

    def commands(self) -> list[Command]:
        """The options as QMP commands, in order; ValueError if one has no command."""
        commands = []
        for name, value in self._options:
            if name not in _COMMANDS or not isinstance(value, dict):
                raise ValueError(f"-{name} can't be given to a running QEMU")
            commands.append((_COMMANDS[name], dict(value)))
        return commands

    def flag(self, name: str) -> None:
        """An option without a value."""
        self._options.append((name, None))

    def text(self, name: str, value: str) -> None:
        """An option whose value is passed as it is."""
        self._options.append((name, value))

    def keyval(self, name: str, *positional: str, **values: Value | None) -> None:
        """An option in `key=value` syntax."""
        self.text(name, keyval(*positional, **values))

    def device(
        self, driver: str, exact: Mapping[str, Any] | None = None, **properties: Any
    ) -> None:
        """A device; `_` in property names becomes `-`, None leaves a property out.

        `exact` holds the few properties whose names QEMU writes with an underscore.
        """
        self._json("device", {"driver": driver, **_named(properties), **(exact or {})})

    def object(self, qom_type: str, object_id: str, **properties: Any) -> None:
        """A QOM object."""
        self._json("object", {"qom-type": qom_type, "id": object_id, **_named(properties)})

    def blockdev(self, driver: str, node_name: str, **options: Any) -> None:
        """A node of the block graph; the driver is always explicit."""
        self._json("blockdev", {"driver": driver, "node-name": node_name, **_named(options)})

    def netdev(self, kind: str, netdev_id: str, **options: Any) -> None:
        """The host's side of a network card."""
        self._json("netdev", {"type": kind, "id": netdev_id, **_named(options)})

    def _json(self, name: str, value: dict[str, Any]) -> None:
        self._options.append((name, value))


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key.replace("_", "-"): None if value is NULL else value
        for key, value in values.items()
        if value is not None
    }
