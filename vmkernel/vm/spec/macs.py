"""Hardware addresses of virtual cards: their written form, and those that no card may have."""

from __future__ import annotations

from typing import Final

__all__ = ["mac_problem", "normal_mac"]

_SEPARATORS = str.maketrans("", "", ":-.")
_RESERVED: Final = (
    ("00005e", "IANA, for VRRP and CARP among others"),
    ("00000c07ac", "HSRP, version 1"),
    ("00000c9ff", "HSRP, version 2"),
    ("000573a0", "HSRP for IPv6"),
    ("0007b400", "GLBP"),
    ("fe", "the host's side of NICs"),
)
"""Digits that an address begins with, and whose it is: routers answer for the first ones together,
and a bridge would take the last one for its own port's."""


def normal_mac(text: str) -> str:
    """An address in lower case with colons, from any of the usual forms."""
    digits = text.lower().translate(_SEPARATORS)
    return ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))


def mac_problem(mac: str) -> str | None:
    """Why no card may have an address (in the normal form); None if one may."""
    digits = mac.replace(":", "")
    if not int(digits, 16):
        return "An address of zeros is not allowed: omit `mac` to have one generated."
    if int(digits[1], 16) & 1:
        return (
            f"{mac} is a multicast or broadcast address: the second digit of a NIC's "
            "address must be even."
        )
    for start, whose in _RESERVED:
        if digits.startswith(start):
            return (
                f"{mac} is reserved: addresses that begin with {normal_mac(start)} are for {whose}."
                " Omit `mac` to have one generated."
            )
    return None
