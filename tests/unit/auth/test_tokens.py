"""Bearer tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.auth import tokens
from vmkernel.model import Role, TokenSpec
from vmkernel.state import StoredToken

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def _stored(token_id: str, secret: str, spec: TokenSpec | None = None) -> StoredToken:
    return StoredToken(
        id=token_id,
        created_at="2026-01-01T00:00:00Z",
        secret_sha256=tokens.hash_secret(secret),
        spec=spec or TokenSpec(role=Role.ADMIN),
    )


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True))
def test_a_token_proves_itself_and_no_other(token_id: str) -> None:
    secret = tokens.new_secret()
    mine, other = _stored(token_id, secret), _stored("other", "another")
    bearer = tokens.format_bearer(token_id, secret)
    assert tokens.find([other, mine], bearer) is mine
    assert tokens.find([other], bearer) is None
    assert tokens.find([mine], bearer + "x") is None
    assert tokens.find([mine], bearer[:-1]) is None


@pytest.mark.parametrize(
    "bearer",
    ["", "mica", "mica_", "mica__", "mica_admin", "mica_admin_", "other_admin_secret", "é"],
)
def test_what_has_not_the_shape_of_a_token_is_none(bearer: str) -> None:
    assert tokens.parse_bearer(bearer) is None


@given(st.text(max_size=600))
def test_any_text_is_refused_quietly(text: str) -> None:
    assert tokens.find([_stored("admin", "secret")], text) is None


def test_secrets_have_256_bits() -> None:
    assert len(tokens.new_secret()) >= 43
    assert tokens.new_secret() != tokens.new_secret()


@pytest.mark.parametrize(
    ("seconds", "over"), [(-1, True), (0, True), (1, False), (10_000_000, False)]
)
def test_tokens_expire(seconds: int, over: bool) -> None:
    moment = NOW + timedelta(seconds=seconds)
    spec = TokenSpec(role=Role.VIEWER, expires_at=moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert tokens.expired(spec, NOW) is over


@pytest.mark.parametrize(
    "text", ["", "2030", "2030-01-01", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z"]
)
def test_only_utc_timestamps_are_taken(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        tokens.parse_time(text)


def test_an_admin_that_expires_does_not_count_as_the_last_one() -> None:
    expiring = _stored("a", "x", TokenSpec(role=Role.ADMIN, expires_at="2030-01-01T00:00:00Z"))
    operator = _stored("b", "x", TokenSpec(role=Role.OPERATOR))
    assert not tokens.keeps_admin([expiring, operator])
    assert tokens.keeps_admin([expiring, operator, _stored("c", "x")])
