"""The host's network interfaces and their addresses, as the kernel sees them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vmkernel.host import rtnetlink
from vmkernel.host.sysfs import SYS, link_name, read_int, read_text, subfolders
from vmkernel.model import LinkInfo

__all__ = ["is_wired_port", "link_addresses", "link_infos"]

_UP = 0x1
_ETHERNET = 1


def link_infos(sys: Path = SYS) -> tuple[LinkInfo, ...]:
    """All interfaces but the loopback and those of VMs."""
    known = _addresses()
    return tuple(_info(sys, name, known) for name in _names(sys))


def link_addresses(names: tuple[str, ...], sys: Path = SYS) -> tuple[str, ...]:
    """The addresses of the named interfaces, in their order."""
    known = _addresses()
    indices = (read_int(sys / "class/net" / name / "ifindex") for name in names)
    return tuple(a for index in indices if index is not None for a in known.get(index, ()))


def is_wired_port(name: str, sys: Path = SYS) -> bool:
    """True for a physical Ethernet port, False for virtual and wireless interfaces."""
    folder = sys / "class/net" / name
    return (
        read_int(folder / "type") == _ETHERNET
        and (folder / "device").exists()
        and not (folder / "wireless").exists()
        and not (folder / "phy80211").exists()
    )


def _names(sys: Path) -> Iterator[str]:
    for name in subfolders(sys / "class/net"):
        folder = sys / "class/net" / name
        if name != "lo" and (folder / "ifindex").exists() and not (folder / "tun_flags").exists():
            yield name


def _info(sys: Path, name: str, known: dict[int, tuple[str, ...]]) -> LinkInfo:
    folder = sys / "class/net" / name
    flags = read_int(folder / "flags", 16) or 0
    return LinkInfo(
        name=name,
        mac=read_text(folder / "address") or None,
        up=bool(flags & _UP),
        carrier=read_int(folder / "carrier") == 1,
        driver=link_name(folder / "device/driver"),
        master=link_name(folder / "master"),
        addresses=known.get(read_int(folder / "ifindex") or 0, ()),
    )


def _addresses() -> dict[int, tuple[str, ...]]:
    with contextlib.suppress(OSError):
        return rtnetlink.addresses()
    return {}
