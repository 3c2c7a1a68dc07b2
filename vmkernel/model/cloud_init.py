"""What a guest is told at its first start, by cloud-init's NoCloud."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from vmkernel.model.base import Record
from vmkernel.text import PRINTABLE_WITH_TABS

__all__ = ["CONCEALED", "CloudInitSpec", "UserDataFormat"]

CONCEALED = "***"
"""Stands for a secret in what is shown; where it is sent back, the secret stays as it is."""


class UserDataFormat(StrEnum):
    """Who reads the user data."""

    CLOUD_INIT = "cloud-init"
    """They are checked by cloud-init's rules, and joined with user, keys and password."""
    ANY = "any"
    """Talos, Ignition, cloudbase-init or another: they reach the guest as they are."""


class CloudInitSpec(Record, frozen=True, kw_only=True):
    """The seed: on a CD-ROM of its own, read by cloud-init once for each instance."""

    hostname: (
        Annotated[
            str,
            msgspec.Meta(max_length=253, pattern=r"^[A-Za-z0-9_.-]+$(?!\n)"),
        ]
        | None
    ) = None
    """The VM's id where it isn't given."""
    user: (
        Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?$(?!\n)")] | None
    ) = None
    """The name of the system's first user; the system's own choice where it isn't given."""
    password_hash: (
        Annotated[
            str,
            msgspec.Meta(
                max_length=512,
                pattern=r"^(\*\*\*|\$(y|gy|7|2[abxy]|5|6|1)\$[A-Za-z0-9./,=$-]+)$(?!\n)",
            ),
        ]
        | None
    ) = None
    """Of that user, as crypt(5) writes it (`openssl passwd -6`); where `user` isn't given, of a
    kind that cloud-init takes there. Never shown."""
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
    """Public keys that may log in as that user, each a line as in authorized_keys."""
    format: UserDataFormat = UserDataFormat.CLOUD_INIT
    user_data: Annotated[str, msgspec.Meta(max_length=1 << 18)] | None = None
    """In any form that cloud-init knows, or, with the format `any`, in one that it doesn't.
    May hold secrets: shown to operators, of one VM alone."""
    meta_data: Annotated[dict[str, str], msgspec.Meta(max_length=64)] = {}
    """Further meta-data."""
    network_config: Annotated[str, msgspec.Meta(max_length=1 << 16)] | None = None
    """Version 1 or 2, in YAML or JSON; DHCP on the first card where it isn't given."""
