"""Names of objects: the one rule that a host has for them, checked before anything is sent."""

from __future__ import annotations

import re

from remote_api.client.errors import MisuseError

__all__ = ["NAME_RULE", "check_path", "checked_name"]

NAME_RULE = (
    "use lower-case letters (a-z), digits and hyphens, with a letter or digit at both ends and at"
    " most 63 characters"
)
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_OPERATION = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
"""Operations have ids that the host chose."""
_SHOWN = 80


def checked_name(text: str) -> str:
    """The name itself. Raises MisuseError if nothing on a host can be called so."""
    if not _NAME.match(text):
        near = re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-")
        such = f", such as {near}" if near else ""
        raise MisuseError(f"{text[:_SHOWN]!r} is not a valid name: {NAME_RULE}{such}")
    return text


def check_path(path: str) -> None:
    """Refuse anything that isn't a path of the API: a name with a `?` or `..` would lead elsewhere.

    Every part of a path is made as names are, but for the ids of operations. Raises MisuseError.
    """
    before = ""
    for part in path.removeprefix("/").split("/"):
        if before != "operations":
            checked_name(part)
        elif not _OPERATION.match(part):
            raise MisuseError(
                f"{part[:_SHOWN]!r} is not the ID of an operation; see `mica operation list`"
            )
        before = part
