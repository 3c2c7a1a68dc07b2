"""Trust in a host by its certificate's SHA-256 fingerprint, as its console shows it."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from remote_api.client.errors import MisuseError, UnreachableError, UntrustedError

__all__ = [
    "PinnedContext",
    "fetch_fingerprint",
    "normal_address",
    "normal_fingerprint",
    "shown_fingerprint",
]

_HTTPS_PORT = 443


class PinnedContext(ssl.SSLContext):
    """A TLS context that accepts exactly one certificate.

    The certificate is compared as soon as the handshake has ended, before anything is sent. A
    handshake proves that the peer holds the certificate's key; names and dates don't matter.
    """

    _digest: bytes

    def __new__(cls, fingerprint: str) -> PinnedContext:
        """A context for one fingerprint (64 hexadecimal digits)."""
        context = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.pin(fingerprint)
        return context

    def pin(self, fingerprint: str) -> None:
        """Accept this certificate from now on, and no other."""
        self._digest = bytes.fromhex(normal_fingerprint(fingerprint))

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """Do the handshake, and close the connection if the certificate is another one."""
        wrapped = super().wrap_socket(*arguments, **named)
        shown = _digest_of(wrapped)
        if not hmac.compare_digest(shown, self._digest):
            wrapped.close()
            raise UntrustedError(
                f"the host's certificate has the fingerprint {shown.hex()}, but"
                f" {self._digest.hex()}"
                " is pinned. Compare the new fingerprint with the host's screen: if the certificate"
                " was rotated, add the host again with `mica context add`; if the host was reset,"
                " claim it again with `mica claim`. Otherwise do not connect."
            )
        return wrapped


def fetch_fingerprint(address: str, *, timeout_s: float = 10.0) -> str:
    """The fingerprint that a host shows now; the connection is used for nothing else."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or _HTTPS_PORT
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            return _digest_of(wrapped).hex()
    except OSError as error:
        raise UnreachableError(f"{address} can't be reached: {error}") from error


def normal_fingerprint(text: str) -> str:
    """A fingerprint as 64 lower-case digits, from any usual way to write it."""
    digits = re.sub(r"[\s:-]|^sha-?256[:/=]", "", text.strip().lower())
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise MisuseError(f"{text!r} is not a SHA-256 fingerprint; it has 64 hexadecimal digits")
    return digits


def shown_fingerprint(digits: str) -> str:
    """A fingerprint in groups that can be compared by eye."""
    return " ".join(digits[at : at + 8] for at in range(0, len(digits), 8))


def normal_address(text: str) -> str:
    """`https://host[:port]`, from that, `host:port` or a bare name or address."""
    if "://" not in text:
        bare_v6 = text.count(":") > 1 and not text.startswith("[")
        text = f"https://[{text}]" if bare_v6 else f"https://{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise MisuseError(f"{text!r} is not an address of a host: {error}") from error
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise MisuseError(f"{text!r} is not an address of a host; use HOST or HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}" if port in (None, _HTTPS_PORT) else f"https://{host}:{port}"


def _digest_of(wrapped: ssl.SSLSocket) -> bytes:
    certificate = wrapped.getpeercert(binary_form=True)
    if not certificate:
        raise UntrustedError("the host presented no certificate")
    return hashlib.sha256(certificate).digest()
