"""Making a certificate: when the form for older versions of OpenSSL is used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vmkernel.host.errors import CommandError
from vmkernel.host.openssl import self_signed_p256
from vmkernel.host.runner import Completed, Runner
from vmkernel.model import ErrorCode

PEM = (
    b"-----BEGIN PRIVATE KEY-----\nk\n-----END PRIVATE KEY-----\n"
    b"-----BEGIN CERTIFICATE-----\nc\n-----END CERTIFICATE-----\n"
)
calls: list[list[str]] = []


class OldOpenSsl(Runner):
    """Fails at `-not_before` in one way or another."""

    failure: CommandError

    async def run(self, argv: Sequence[str | Path], **_options: Any) -> Completed:
        words = [str(word) for word in argv]
        calls.append(words)
        if "-not_before" in words:
            raise self.failure
        return Completed(0, PEM, b"")


def make(returncode: int | None, output: str, code: ErrorCode = ErrorCode.UNAVAILABLE) -> str:
    calls.clear()
    runner = OldOpenSsl()
    error = CommandError("no.", replay="", returncode=returncode, output=output, code=code)
    object.__setattr__(runner, "failure", error)
    made = self_signed_p256(runner, subject=[("CN", "x")], alternative_names=["DNS:x"])
    return asyncio.run(made)[0]


@pytest.mark.parametrize(
    "said",
    [
        "req: Unrecognized flag not_before\nreq: Use -help for summary.",
        "req: Unknown option or cipher: not_before\nreq: Use -help for summary.",
    ],
)
def test_an_older_openssl_gets_its_own_form(said: str) -> None:
    assert "BEGIN CERTIFICATE" in make(1, said)
    assert "-days" in calls[1]


@pytest.mark.parametrize(
    ("returncode", "output", "code"),
    [
        (None, "", ErrorCode.TIMED_OUT),
        (None, "", ErrorCode.UNAVAILABLE),
        (1, "req: Can't open /dev/null for reading", ErrorCode.UNAVAILABLE),
    ],
)
def test_other_failures_are_not_tried_again(
    returncode: int | None, output: str, code: ErrorCode
) -> None:
    with pytest.raises(CommandError):
        make(returncode, output, code)
    assert len(calls) == 1
