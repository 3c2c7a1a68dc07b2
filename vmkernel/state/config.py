"""The host configuration: what is stored on the stick, without VMs."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from vmkernel import clock
from vmkernel.decoding import UndecodableError, convert_to, decode_document, decode_json
from vmkernel.model import (
    DatastoreSpec,
    ErrorCode,
    Record,
    Sha256Hex,
    Slug,
    Timestamp,
    TokenSpec,
    WebhookSpec,
)
from vmkernel.state.errors import StateError
from vmkernel.state.upgrades import SCHEMA, upgrade

__all__ = [
    "HostConfig",
    "NetworkSettings",
    "StoredDatastore",
    "StoredToken",
    "StoredWebhook",
    "TlsMaterial",
    "decode_config",
    "encode_config",
    "new_config",
]


class TlsMaterial(Record, frozen=True, kw_only=True):
    """The API's own certificate and key, PEM."""

    certificate_pem: str
    private_key_pem: str

    def __repr__(self) -> str:
        """Without the key."""
        return "TlsMaterial(…)"


class StoredToken(Record, frozen=True, kw_only=True):
    """A token as it is kept: the hash of its secret alone."""

    id: Slug
    created_at: Timestamp
    secret_sha256: Sha256Hex
    spec: TokenSpec

    def __repr__(self) -> str:
        """Without the hash."""
        return f"StoredToken({self.id!r}, {self.spec!r})"


class StoredDatastore(Record, frozen=True, kw_only=True):
    """A datastore that this host knows; its content describes itself."""

    id: Slug
    created_at: Timestamp
    spec: DatastoreSpec
    revision: int = 1
    uuid: str
    """Of the marker file; a place with another one is not this datastore."""
    backing: str | None = None
    """How its driver finds it again; no other code reads it: the GUID of a partition, the UUID of
    an array, the name of a volume group."""
    unmounted: bool = False
    """True if it should stay unmounted."""


class StoredWebhook(Record, frozen=True, kw_only=True):
    """A webhook as it is kept, with its secret: it signs with it."""

    id: Slug
    created_at: Timestamp
    revision: int = 1
    spec: WebhookSpec
    disabled_reason: str | None = None
    """Why the host disabled it; null if a client did."""


class NetworkSettings(Record, frozen=True, kw_only=True):
    """The management network as it was asked for; no addresses means DHCP and SLAAC."""

    addresses: tuple[str, ...] = ()
    """In CIDR notation."""
    gateways: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    vlan: Annotated[int, msgspec.Meta(ge=1, le=4094)] | None = None
    ntp_servers: tuple[str, ...] = ()
    syslog: str | None = None


class HostConfig(Record, frozen=True, kw_only=True):
    """Everything that is stored."""

    uuid: str
    created_at: Timestamp
    hostname: str
    tls: TlsMaterial | None = None
    tokens: tuple[StoredToken, ...] = ()
    datastores: tuple[StoredDatastore, ...] = ()
    mica_toml_sha256: Sha256Hex | None = None
    """Of the `mica.toml` that was taken; the same file is not taken again."""
    network: NetworkSettings = NetworkSettings()
    management_mac: str | None = None
    """The hardware address that the network knows the host by, so that it keeps its lease."""
    autostart: tuple[Slug, ...] = ()
    """VMs to start when the host starts, in order."""
    webhooks: tuple[StoredWebhook, ...] = ()


def new_config() -> HostConfig:
    """The configuration of a host that has just been switched on for the first time."""
    identity = uuid.uuid4()
    return HostConfig(
        uuid=str(identity), created_at=clock.now(), hostname=f"mica-{identity.hex[:8]}"
    )


def encode_config(config: HostConfig) -> bytes:
    """The payload of a snapshot, in the present schema."""
    return msgspec.json.encode(config)


def decode_config(schema: int, payload: bytes) -> HostConfig:
    """A snapshot's payload, brought to the present schema."""
    try:
        if schema == SCHEMA:
            return decode_json(payload, HostConfig)
        return convert_to(upgrade(schema, decode_document(payload)), HostConfig)
    except (UndecodableError, KeyError, TypeError, ValueError) as error:
        raise StateError(
            ErrorCode.UNAVAILABLE,
            f"The saved host configuration (schema {schema}) can't be read: {error}.",
        ) from error
