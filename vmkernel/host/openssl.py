"""Keys and certificates, made by OpenSSL's own program.

A library for this would take a sixth of our Python's memory and is needed once in a host's life;
OpenSSL is installed anyway, for Python's `ssl`.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner

__all__ = ["self_signed_p256"]

_TIMEOUT_S = 30.0
_ALWAYS_VALID = ("-not_before", "20000101000000Z", "-not_after", "99991231235959Z")
"""Independent of the clock, which may be wrong at first boot; needs OpenSSL 3.4."""
_LONG_VALID = ("-days", "2900000")


async def self_signed_p256(
    runner: Runner, *, subject: Sequence[tuple[str, str]], alternative_names: Sequence[str]
) -> tuple[str, str]:
    """A new ECDSA P-256 key and its own certificate for a TLS server: (certificate, key) in PEM.

    `subject` are attributes and values without `/`; `alternative_names` are in OpenSSL's form
    (`DNS:name`, `IP:address`). The certificate has no well-defined end (RFC 5280 section 4.1.2.5).
    CommandError if OpenSSL fails.
    """
    command = [
        *("openssl", "req", "-x509", "-config", "/dev/null", "-sha256", "-nodes"),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", "-", "-out", "-"),
        *("-subj", "".join(f"/{name}={value}" for name, value in subject)),
        *("-addext", "subjectAltName=" + ",".join(alternative_names)),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "keyUsage=critical,digitalSignature"),
        *("-addext", "extendedKeyUsage=serverAuth"),
    ]
    try:
        done = await runner.run([*command, *_ALWAYS_VALID], timeout_s=_TIMEOUT_S)
    except CommandError as error:
        if not _is_usage(error):
            raise
        done = await runner.run([*command, *_LONG_VALID], timeout_s=_TIMEOUT_S)
    text = done.stdout.decode("ascii")
    return _block(text, "CERTIFICATE"), _block(text, "PRIVATE KEY")


def _is_usage(error: CommandError) -> bool:
    """Whether OpenSSL refused an option: every version then refers to its help."""
    return error.returncode == 1 and "Use -help for summary" in error.output


def _block(text: str, label: str) -> str:
    begin, end = f"-----BEGIN {label}-----", f"-----END {label}-----\n"
    start, stop = text.index(begin), text.index(end)
    return text[start : stop + len(end)]
