"""`mica.toml`: settings put on the stick before power-on. Read strictly, all or nothing.

    hostname = "mica1"
    [network]  addresses, gateways, nameservers, vlan
    [time]     servers
    [log]      syslog
    [access]   admin_token_id, admin_token_sha256, claim

A file without any setting (as it comes with the image) counts as no file.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import tomllib
from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model import Record, Sha256Hex, Slug
from vmkernel.syslog.target import parse_target

__all__ = ["ClaimPolicy", "MicaToml", "MicaTomlError", "digest", "parse"]

MAX_BYTES = 64 << 10

_HOSTNAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$(?!\n)"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


class MicaTomlError(Exception):
    """The file can't be used; the message names the key."""


class ClaimPolicy(StrEnum):
    """How a host may be claimed."""

    CONSOLE = "console"
    """With the code that the console shows."""
    OFF = "off"
    """Not at all: the admin token of this file is the only way in."""


class NetworkTable(Record, frozen=True, kw_only=True):
    """The management network; without addresses: DHCP and SLAAC."""

    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    vlan: Annotated[int, msgspec.Meta(ge=1, le=4094)] | None = None


class TimeTable(Record, frozen=True, kw_only=True):
    servers: tuple[str, ...] = ()


class LogTable(Record, frozen=True, kw_only=True):
    syslog: str | None = None


class AccessTable(Record, frozen=True, kw_only=True):
    admin_token_id: Slug = "admin"  # noqa: S105 - the id, not the secret
    admin_token_sha256: Sha256Hex | None = None
    claim: ClaimPolicy = ClaimPolicy.CONSOLE


class MicaToml(Record, frozen=True, kw_only=True):
    hostname: Annotated[str, msgspec.Meta(pattern=_HOSTNAME, max_length=253)] | None = None
    network: NetworkTable = NetworkTable()
    time: TimeTable = TimeTable()
    log: LogTable = LogTable()
    access: AccessTable = AccessTable()

    @property
    def says_nothing(self) -> bool:
        """True if no setting differs from its default."""
        return self == MicaToml()


def digest(data: bytes) -> str:
    """What the taking of a file is remembered by."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes) -> MicaToml:
    """Read and check a file's content; MicaTomlError names the setting and the mistake."""
    if len(data) > MAX_BYTES:
        raise MicaTomlError(f"the file is larger than {MAX_BYTES} bytes")
    try:
        table = tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise MicaTomlError("the file is not UTF-8 text") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MicaTomlError(f"the file is not TOML: {error}") from error
    try:
        settings = msgspec.convert(table, MicaToml)
    except msgspec.ValidationError as error:
        raise MicaTomlError(_worded(str(error))) from error
    _check_network(settings.network)
    for index, server in enumerate(settings.time.servers):
        if not _NAME.fullmatch(server) and not _is_address(server):
            raise MicaTomlError(
                f"time.servers[{index}]: {server!r} is not a host name or an address"
            )
    _check_syslog(settings.log.syslog)
    access = settings.access
    if access.claim is ClaimPolicy.OFF and access.admin_token_sha256 is None:
        raise MicaTomlError(
            'access.claim: "off" needs access.admin_token_sha256, or no client could get in'
        )
    return settings


def _worded(message: str) -> str:
    match = _PATH.search(message)
    if match is None:
        return message
    text = message[: match.start()]
    return f"{match['path']}: {text}" if match["path"] else text


def _check_network(network: NetworkTable) -> None:
    interfaces = []
    for index, text in enumerate(network.addresses):
        key = f"network.addresses[{index}]"
        if "/" not in text:
            raise MicaTomlError(f"{key}: {text!r} has no prefix length, such as /24")
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError as error:
            raise MicaTomlError(
                f"{key}: {text!r} is not an address with a prefix length"
            ) from error
        if interface.ip.is_multicast or interface.ip.is_unspecified or interface.ip.is_loopback:
            raise MicaTomlError(f"{key}: {text!r} can't be a host's address")
        interfaces.append(interface)
    for index, text in enumerate(network.gateways):
        key = f"network.gateways[{index}]"
        if not _is_address(text):
            raise MicaTomlError(f"{key}: {text!r} is not an address")
        gateway = ipaddress.ip_address(text)
        if not gateway.is_link_local and not any(
            gateway in interface.network for interface in interfaces
        ):
            raise MicaTomlError(f"{key}: {text} is in none of the networks of network.addresses")
    for index, text in enumerate(network.nameservers):
        if not _is_address(text):
            raise MicaTomlError(f"network.nameservers[{index}]: {text!r} is not an address")


def _check_syslog(syslog: str | None) -> None:
    if syslog is None:
        return
    if parse_target(syslog) is None:
        raise MicaTomlError(f"log.syslog: {syslog!r} is not like udp://host:514 or tcp://host:514")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
