"""Hashes for guests, against the examples of the method's description and against glibc's."""

from __future__ import annotations

import re

import pytest

from remote_api.client.cli.password_hash import hash_password


@pytest.mark.parametrize(
    ("password", "salt", "digest"),
    [
        (
            "Hello world!",
            "saltstring",
            "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "grüße ✓ " * 20,
            "0123456789abcdef",
            "6ZL2Xr7U.7rnLRTo/1//HiPwzGILAhleDpduo5jdHuBu4UJjC1kSJhJnE9Je8/q3BMcoIvP/spdbLb/XM6KxC.",
        ),
    ],
)
def test_known_hashes(password: str, salt: str, digest: str) -> None:
    assert hash_password(password, salt) == f"$6${salt}${digest}"


def test_each_has_its_own_salt() -> None:
    one, two = hash_password("x"), hash_password("x")
    assert one != two
    assert re.fullmatch(r"\$6\$[./0-9A-Za-z]{16}\$[./0-9A-Za-z]{86}", one)
    assert hash_password("x", one.split("$")[2]) == one
