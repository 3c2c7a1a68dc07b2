"""Bearer tokens: `mica_<id>_<secret>`, of which the SHA-256 of the secret is kept.

A secret has 256 random bits, so a fast hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from vmkernel.model import Role, TokenSpec
from vmkernel.state.config import StoredToken

__all__ = [
    "expired",
    "find",
    "format_bearer",
    "hash_secret",
    "keeps_admin",
    "new_secret",
    "parse_bearer",
    "parse_time",
]

_PREFIX = "mica"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_NOBODY = hashlib.sha256(b"").hexdigest()


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """The hash that is stored instead of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def format_bearer(token_id: str, secret: str) -> str:
    """The whole token as the client sends it."""
    return f"{_PREFIX}_{token_id}_{secret}"


def parse_bearer(bearer: str) -> tuple[str, str] | None:
    """The ID and secret of a bearer token; None if it is malformed."""
    if len(bearer) > 512:
        return None
    prefix, _, rest = bearer.partition("_")
    token_id, _, secret = rest.partition("_")
    if prefix != _PREFIX or not token_id or not secret:
        return None
    return token_id, secret


def find(tokens: Iterable[StoredToken], bearer: str) -> StoredToken | None:
    """The token that a bearer token matches; expired ones too."""
    parsed = parse_bearer(bearer)
    if parsed is None:
        return None
    token_id, secret = parsed
    stored = next((token for token in tokens if token.id == token_id), None)
    expected = stored.secret_sha256 if stored is not None else _NOBODY
    matches = hmac.compare_digest(hash_secret(secret), expected)
    return stored if matches else None


def parse_time(text: str) -> datetime:
    """A timestamp of ours; ValueError for anything else."""
    if _TIME.fullmatch(text) is None:
        raise ValueError("must be RFC 3339 in UTC, such as 2030-01-31T12:00:00Z")
    whole, _, fraction = text[:-1].partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return moment.replace(microsecond=int(fraction.ljust(6, "0")[:6])) if fraction else moment


def expired(spec: TokenSpec, moment: datetime) -> bool:
    """True if a token has expired."""
    return spec.expires_at is not None and parse_time(spec.expires_at) <= moment


def keeps_admin(tokens: Iterable[StoredToken]) -> bool:
    """True if an admin token remains that doesn't expire, so that administrators
    aren't locked out.
    """
    return any(t.spec.role is Role.ADMIN and t.spec.expires_at is None for t in tokens)
