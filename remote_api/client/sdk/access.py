"""Claim and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from remote_api.client.sdk.base import CREATE, Calls
from remote_api.client.sdk.queries import AuditListQuery, TokenListQuery
from remote_api.schema import (
    ClaimBody,
    PageOf,
    TokenBody,
)
from vmkernel.model import AuditRecord, IssuedToken, Token, TokenSpec

__all__ = ["AccessCalls"]


class AccessCalls(Calls):
    """Claim and tokens."""

    def claim(self, code: str, *, token_id: str = "admin") -> IssuedToken:  # noqa: S107 - an id
        """Claim the host: exchange the claim code for its first admin token."""
        body = ClaimBody(code=code, token_id=token_id)
        return self.transport.send("POST", "/v1/claim", body=body).read(IssuedToken)

    def whoami(self) -> Token:
        """The token of this client."""
        return self.transport.send("GET", "/v1/whoami").read(Token)

    def tokens(self, **query: Unpack[TokenListQuery]) -> Iterator[Token]:
        """All tokens."""
        return self._all("/v1/tokens", PageOf[Token], query)

    def create_token(self, token_id: str, spec: TokenSpec) -> IssuedToken:
        """Create a token; only this answer contains its secret."""
        path = f"/v1/tokens/{token_id}"
        return self.transport.send("PUT", path, body=TokenBody(spec=spec), headers=CREATE).read(
            IssuedToken
        )

    def delete_token(self, token_id: str) -> None:
        """Delete a token; requests with it are refused from then on."""
        self.transport.send("DELETE", f"/v1/tokens/{token_id}")

    def audit(self, **query: Unpack[AuditListQuery]) -> Iterator[AuditRecord]:
        """The audit trail, newest first."""
        return self._all("/v1/audit", PageOf[AuditRecord], query)
