"""Tokens and the claim, kept in the host configuration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from vmkernel import clock
from vmkernel.auth import tokens
from vmkernel.auth.caller import ANONYMOUS, Caller
from vmkernel.auth.claim import ClaimCode
from vmkernel.events import EventBus
from vmkernel.model import ErrorCode, IssuedToken, MicaError, Role, Subject, Token, TokenSpec
from vmkernel.state import HostConfig, StateStore, StoredToken

__all__ = ["AccessService"]

_MAX_TOKENS = 500


class AccessService:
    """Authenticates, authorises, and keeps the tokens."""

    def __init__(
        self,
        store: StateStore,
        bus: EventBus,
        *,
        claim_code: ClaimCode | None = None,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._bus = bus
        self._claim = claim_code or ClaimCode()
        self._utc_now = utc_now

    @property
    def claimed(self) -> bool:
        """True once an admin token exists."""
        return tokens.keeps_admin(self._store.config.tokens)

    @property
    def claim_code(self) -> str | None:
        """The code that the console shows while the host is unclaimed."""
        return None if self.claimed else self._claim.text

    def authenticate(self, bearer: str | None, origin: str) -> Caller:
        """The caller with this bearer token; `unauthenticated` if it isn't valid."""
        if bearer is None:
            raise MicaError(ErrorCode.UNAUTHENTICATED, "This request needs a token.")
        stored = tokens.find(self._store.config.tokens, bearer)
        if stored is None:
            raise MicaError(ErrorCode.UNAUTHENTICATED, "The token is not known or was revoked.")
        if tokens.expired(stored.spec, self._utc_now()):
            raise MicaError(ErrorCode.UNAUTHENTICATED, f"Token {stored.id} has expired.")
        return Caller(actor=stored.id, role=stored.spec.role, origin=origin)

    @staticmethod
    def anonymous(origin: str) -> Caller:
        """The caller of a request that needs no token."""
        return Caller(actor=ANONYMOUS, role=None, origin=origin)

    @staticmethod
    def authorise(caller: Caller, needed: Role) -> None:
        """Return if the caller's role includes the needed one; else `forbidden`."""
        if caller.role is None or not caller.role.includes(needed):
            raise MicaError(
                ErrorCode.FORBIDDEN,
                f"Token {caller.actor} is a {caller.role} token; this needs the role {needed}.",
            )

    def list(self) -> tuple[Token, ...]:
        return tuple(sorted(map(_public, self._store.config.tokens), key=lambda token: token.id))

    def get(self, token_id: str) -> Token:
        for stored in self._store.config.tokens:
            if stored.id == token_id:
                return _public(stored)
        raise MicaError(ErrorCode.NOT_FOUND, f"There is no token {token_id}.")

    async def claim(self, code: str, token_id: str, *, origin: str = "") -> IssuedToken:
        """Spend the claim code for an admin token; the spending is durable on return."""
        if self.claimed:
            raise MicaError(ErrorCode.CONFLICT, "This host is already claimed.")
        self._claim.check(code, origin)

        def change(config: HostConfig) -> HostConfig:
            if tokens.keeps_admin(config.tokens):
                raise MicaError(ErrorCode.CONFLICT, "This host is already claimed.")
            return _with_token(config, stored)

        spec = TokenSpec(role=Role.ADMIN, description="Created by claiming the host.")
        stored, issued = _issue(token_id, spec)
        await self._store.update(change)
        self._publish("token.created", token_id, token_id)
        self._bus.publish(
            "host.claimed", Subject(kind="host", id="host"), actor=token_id, message="Claimed."
        )
        return issued

    async def create(self, token_id: str, spec: TokenSpec, *, actor: str) -> IssuedToken:
        """Make a token; durable on return."""
        if spec.expires_at is not None:
            try:
                over = tokens.expired(spec, self._utc_now())
            except ValueError as error:
                raise MicaError.field("/spec/expires_at", f"expires_at {error}.") from error
            if over:
                raise MicaError.field("/spec/expires_at", "expires_at is in the past.")
        stored, issued = _issue(token_id, spec)
        await self._store.update(lambda config: _with_token(config, stored))
        self._publish("token.created", token_id, actor)
        return issued

    async def delete(self, token_id: str, *, actor: str) -> None:
        """Revoke a token; durable on return, in force at once."""

        def change(config: HostConfig) -> HostConfig:
            left = tuple(token for token in config.tokens if token.id != token_id)
            if len(left) == len(config.tokens):
                raise MicaError(ErrorCode.NOT_FOUND, f"There is no token {token_id}.")
            if not tokens.keeps_admin(left):
                raise MicaError(
                    ErrorCode.CONFLICT,
                    f"Token {token_id} is the last admin token that doesn't expire; "
                    "make another one first.",
                )
            return msgspec.structs.replace(config, tokens=left)

        await self._store.update(change)
        self._publish("token.deleted", token_id, actor)

    def _publish(self, event_type: str, token_id: str, actor: str) -> None:
        self._bus.publish(event_type, Subject(kind="token", id=token_id), actor=actor)


def _issue(token_id: str, spec: TokenSpec) -> tuple[StoredToken, IssuedToken]:
    secret = tokens.new_secret()
    stored = StoredToken(
        id=token_id, created_at=clock.now(), secret_sha256=tokens.hash_secret(secret), spec=spec
    )
    return stored, IssuedToken(token=_public(stored), secret=tokens.format_bearer(token_id, secret))


def _public(stored: StoredToken) -> Token:
    return Token(id=stored.id, created_at=stored.created_at, spec=stored.spec)


def _with_token(config: HostConfig, stored: StoredToken) -> HostConfig:
    if any(token.id == stored.id for token in config.tokens):
        raise MicaError(ErrorCode.ALREADY_EXISTS, f"There is a token {stored.id} already.")
    if len(config.tokens) >= _MAX_TOKENS:
        raise MicaError(
            ErrorCode.INSUFFICIENT_RESOURCES,
            f"There are {_MAX_TOKENS} tokens already; delete some first.",
        )
    return msgspec.structs.replace(config, tokens=(*config.tokens, stored))
