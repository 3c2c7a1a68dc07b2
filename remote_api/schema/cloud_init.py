"""What a guest is told at its first start, by cloud-init's NoCloud."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.base import WireEnum, WireModel
from vmkernel.text import PRINTABLE_WITH_TABS

__all__ = ["CloudInitSpec", "UserDataFormat"]


class UserDataFormat(WireEnum):
    """Who reads the user data: cloud-init, or any other program."""

    CLOUD_INIT = "cloud-init"
    ANY = "any"


class CloudInitSpec(WireModel, frozen=True, kw_only=True):
    """What a guest is told at its first start, on a CD-ROM of its own labelled CIDATA.

    Secrets are answered as `***`; where that is sent back, they stay as they are.
    """

    hostname: (
        Annotated[
            str,
            Meta(
                max_length=253,
                pattern=r"^[A-Za-z0-9_.-]+$(?!\n)",
                description="The VM's id by default.",
            ),
        ]
        | None
    ) = None
    user: (
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]{0,31}\$?$(?!\n)",
                description="The name of the first user; the system's own choice where null.",
            ),
        ]
        | None
    ) = None
    password_hash: (
        Annotated[
            str,
            Meta(
                max_length=512,
                pattern=r"^(\*\*\*|\$(y|gy|7|2[abxy]|5|6|1)\$[A-Za-z0-9./,=$-]+)$(?!\n)",
                description="That user's, as crypt(5) writes it (`mica vm create --password` makes"
                " one); without `user`, one that begins with $1$, $2a$, $2y$, $5$ or $6$. Never"
                " shown.",
            ),
        ]
        | None
    ) = None
    ssh_keys: Annotated[
        tuple[
            Annotated[
                str,
                Meta(
                    max_length=16384,
                    min_length=1,
                    pattern=PRINTABLE_WITH_TABS,
                ),
            ],
            ...,
        ],
        Meta(
            max_length=64,
            description="Public keys that may log in as that user: lines of authorized_keys.",
        ),
    ] = ()
    format: Annotated[
        UserDataFormat,
        Meta(
            description="Who reads `user_data`. With `any` (Talos, Ignition, cloudbase-init), they"
            " reach the guest unchecked and as they are, without user, keys and password."
        ),
    ] = UserDataFormat.CLOUD_INIT
    user_data: (
        Annotated[
            str,
            Meta(
                max_length=1 << 18,
                description="As `format` says; shown to operators, of one VM alone.",
            ),
        ]
        | None
    ) = None
    meta_data: Annotated[dict[str, str], Meta(max_length=64, description="Further meta-data.")] = {}
    network_config: (
        Annotated[
            str,
            Meta(
                max_length=1 << 16,
                description="Version 1 or 2; DHCP on the first card where null.",
            ),
        ]
        | None
    ) = None
