"""What cloud-init configures in a guest at its first start (cloud-init's NoCloud data source)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from vmkernel.model.base import OpenEnum, Record
from vmkernel.text import PRINTABLE_WITH_TABS

__all__ = ["CONCEALED", "CloudInitSpec", "UserDataFormat"]

CONCEALED = "***"
"""Shown instead of a secret; sending it back leaves the secret unchanged."""


class UserDataFormat(OpenEnum):
    """What reads the user data: cloud-init, or any other program."""

    CLOUD_INIT = "cloud-init"
    """They are checked by cloud-init's rules, and joined with user, keys and password."""
    ANY = "any"
    """Talos, Ignition, cloudbase-init or another: the user data reach the guest unchanged."""


class CloudInitSpec(Record, frozen=True, kw_only=True):
    """What cloud-init configures in a guest at its first start, on a CD-ROM labelled CIDATA.

    Secrets are shown as `***`; sending that back leaves them unchanged.
    """

    hostname: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=253,
                pattern=r"^[A-Za-z0-9_.-]+$(?!\n)",
                description="Letters, digits, `_`, `.` and `-`.",
            ),
        ]
        | None
    ) = None
    """The VM's id by default."""
    user: (
        Annotated[
            str,
            msgspec.Meta(
                pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?$(?!\n)",
                description="Letters, digits, `_`, `.`, `@` and `-`; at most 32.",
            ),
        ]
        | None
    ) = None
    """The name of the first user; the guest's default user if null."""
    password_hash: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=512,
                pattern=r"^(\*\*\*|\$(y|gy|7|2[abxy]|5|6|1)\$[A-Za-z0-9./,=$-]+)$(?!\n)",
                description="A hash as crypt(5) writes it, such as by `openssl passwd -6`.",
            ),
        ]
        | None
    ) = None
    """The password hash of that user in crypt(5) format (`mica vm create --password` makes one).
    Without `user`, it must begin with $1$, $2a$, $2y$, $5$ or $6$. Never shown."""
    ssh_keys: Annotated[
        tuple[
            Annotated[
                str,
                msgspec.Meta(
                    max_length=16384,
                    min_length=1,
                    pattern=PRINTABLE_WITH_TABS,
                ),
            ],
            ...,
        ],
        msgspec.Meta(max_length=64),
    ] = ()
    """Public keys that may log in as that user: lines of authorized_keys."""
    format: UserDataFormat = UserDataFormat.CLOUD_INIT
    """Which program reads `user_data`. With `any` (Talos, Ignition, cloudbase-init), they reach the
    guest unchecked and unchanged, without user, keys and password."""
    user_data: Annotated[str, msgspec.Meta(max_length=1 << 18)] | None = None
    """The user data in the given `format`. Only operators see them, and only when reading a single
    VM."""
    meta_data: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}
    """Further meta-data."""
    network_config: Annotated[str, msgspec.Meta(max_length=1 << 16)] | None = None
    """Version 1 or 2; if null, DHCP on the first NIC."""
