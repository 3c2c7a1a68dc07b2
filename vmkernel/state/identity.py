"""The API's self-signed certificate: made once, at first boot."""

from __future__ import annotations

import binascii
import hashlib

from vmkernel.host.openssl import self_signed_p256
from vmkernel.host.runner import Runner
from vmkernel.state.config import TlsMaterial

__all__ = ["fingerprint", "new_identity"]


async def new_identity(runner: Runner, hostname: str, uuid: str) -> TlsMaterial:
    """An ECDSA P-256 key and its certificate. Clients pin it, so it never expires (RFC 5280)."""
    certificate, key = await self_signed_p256(
        runner,
        subject=(("CN", hostname), ("serialNumber", uuid)),
        alternative_names=(
            f"DNS:{hostname}",
            f"DNS:{hostname}.local",
            "DNS:localhost",
            "IP:127.0.0.1",
            "IP:::1",
        ),
    )
    return TlsMaterial(certificate_pem=certificate, private_key_pem=key)


def fingerprint(certificate_pem: str) -> str:
    """The SHA-256 of the certificate (DER), lower-case hex."""
    body = [line for line in certificate_pem.splitlines() if line and not line.startswith("-")]
    return hashlib.sha256(binascii.a2b_base64("".join(body))).hexdigest()
