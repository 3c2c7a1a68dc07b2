"""The listener's TLS context, from the identity that the vmkernel keeps.

The private key passes through an anonymous memory file on its way into OpenSSL, which can only
load keys from files; it is never on a disk and the file is gone when this module is done.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
import time

from vmkernel.control import ControlClient
from vmkernel.control.requests import GetTlsIdentity, TlsIdentity
from vmkernel.model import ErrorCode, MicaError

__all__ = ["IdentityUnavailableError", "fetch_identity", "fingerprint_of", "tls_context"]

logger = logging.getLogger("mica.api")

_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 1.0
_LOG_EVERY_S = 5.0


class IdentityUnavailableError(Exception):
    """The vmkernel gave no TLS identity within the time."""


async def fetch_identity(control: ControlClient, timeout_s: float) -> TlsIdentity:
    """The TLS identity, asked again and again while the vmkernel is not there yet.

    Raises IdentityUnavailableError.
    """
    began = logged = time.monotonic()
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await control.call(GetTlsIdentity(), timeout_s=10.0)
        except MicaError as error:
            now = time.monotonic()
            passing = error.problem.code in (
                ErrorCode.UNAVAILABLE,
                ErrorCode.TIMED_OUT,
            )
            if not passing or now - began > timeout_s:
                raise IdentityUnavailableError(
                    f"No TLS identity from the vmkernel after {now - began:.1f} s: {error}"
                ) from error
            if now - logged > _LOG_EVERY_S:
                logger.warning("waiting for the vmkernel, since %.0f s: %s", now - began, error)
                logged = now
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LAST_PAUSE_S)


def fingerprint_of(identity: TlsIdentity) -> str:
    """The SHA-256 of the certificate, as clients see it."""
    der = ssl.PEM_cert_to_DER_cert(identity.certificate_pem.decode("ascii"))
    return hashlib.sha256(der).hexdigest()


def tls_context(identity: TlsIdentity) -> ssl.SSLContext:
    """A server's TLS 1.2+ context with forward secrecy and AEAD only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    # A client that reads and writes in two threads (websockets does) may lose its first request
    # to a ticket that comes at the same moment; and nobody resumes sessions here.
    context.num_tickets = 0
    fd = os.memfd_create("mica-tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, identity.certificate_pem.rstrip() + b"\n" + identity.private_key_pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.ftruncate(fd, 0)
        os.close(fd)
    return context
