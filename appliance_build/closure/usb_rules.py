"""Udev rules that let in the USB devices which a driver of the image claims by a list of its own.

A USB device comes unauthorised (`usbcore.authorized_default=0`). Hubs and storage are let in by
their class in 50-mica.rules; every other driver of the image, which are network adapters and card
readers, says in its aliases what it is for:

    usb:v0BDAp8152d*dc*dsc*dp*icFFisc*ip*in*      one product, whatever else it is
    usb:v413Cp*d*dc*dsc*dp*ic02isc06ip00in*       a maker's devices that have such an interface
    usb:v*p*d*dc*dsc*dp*ic02isc06ip00in*          any device that has one

Storage's own list of products is left out: what is storage has its class.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["usb_rules"]

_ALIAS = re.compile(
    r"usb:v(?P<vendor>[0-9A-F]{4}|\*)p(?P<product>[0-9A-F]{4}|\*)d[^d]*"
    r"dc(?P<device_class>[0-9A-F]{2}|\*)dsc[^d]*dp[^i]*"
    r"ic(?P<class>[0-9A-F]{2}|\*)isc(?P<subclass>[0-9A-F]{2}|\*)ip(?P<protocol>[0-9A-F]{2}|\*)in"
)
_BY_CLASS = frozenset({"uas", "usb_storage", "usbcore"})
_HEAD = """\
# Made at build time from the aliases of the modules in the image (closure/usb_rules.py).
ACTION!="add", GOTO="mica_usb_end"
SUBSYSTEM!="usb", GOTO="mica_usb_end"
ENV{DEVTYPE}!="usb_device", GOTO="mica_usb_end"
ATTR{authorized}!="0", GOTO="mica_usb_end"
"""
_TAIL = 'LABEL="mica_usb_end"\n'


def usb_rules(aliases: Iterable[str]) -> str:
    """The rules for the lines of a `modules.alias`; ValueError for an alias of no known form."""
    products: dict[str, set[str]] = defaultdict(set)
    interfaces: dict[str, set[str]] = defaultdict(set)
    for line in aliases:
        words = line.split()
        if len(words) != 3 or not words[1].startswith("usb:") or words[2] in _BY_CLASS:
            continue
        alias = _ALIAS.match(words[1])
        if alias is None:
            raise ValueError(f"{line!r}: no rule can be made of it")
        vendor, product = alias["vendor"].lower(), alias["product"].lower()
        if product != "*":
            products[vendor].add(product)
        elif alias["class"] != "*":
            code = _interface(alias["class"], alias["subclass"], alias["protocol"])
            interfaces[vendor].add(f"*:{code}:*")
        else:
            raise ValueError(f"{line!r}: it would let in whatever its maker makes")
    rules = [
        _rule(f'ATTR{{idVendor}}=="{vendor}"', f'ATTR{{idProduct}}=="{_any_of(found)}"')
        for vendor, found in sorted(products.items())
    ]
    for vendor, found in sorted(interfaces.items()):
        maker = [] if vendor == "*" else [f'ATTR{{idVendor}}=="{vendor}"']
        rules.append(_rule(*maker, f'ENV{{ID_USB_INTERFACES}}=="{_any_of(found)}"'))
    return _HEAD + "".join(rules) + _TAIL


def _rule(*matches: str) -> str:
    return ", ".join((*matches, 'ATTR{authorized}="1"')) + "\n"


def _any_of(patterns: set[str]) -> str:
    return "|".join(sorted(patterns))


def _interface(*codes: str) -> str:
    """As udev's usb_id writes an interface: class, subclass, protocol."""
    return "".join("??" if code == "*" else code.lower() for code in codes)
