"""Claiming the host, and tokens."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from remote_api.http.conditions import check_version, version_of
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.schema import (
    ApiError,
    AuditPage,
    ClaimBody,
    ListParameters,
    NoQuery,
    PageOf,
    TokenBody,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    AUDIT_LISTING,
    TOKEN_LISTING,
    ErrorCode,
    IssuedToken,
    Role,
    Token,
)

__all__ = ["ROUTES", "TAGS"]


async def claim(exchange: Exchange[NoQuery, ClaimBody]) -> Response:
    """Spend the claim code for an admin token."""
    issued = await exchange.call(
        requests.Claim(code=exchange.body.code, token_id=exchange.body.token_id)
    )
    return json_response(issued, status=201, location=f"/v1/tokens/{issued.token.id}")


async def who_am_i(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """The token of this request."""
    return _token(await exchange.call(requests.WhoAmI()))


async def list_tokens(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListTokens)


async def get_token(exchange: Exchange[NoQuery, NoBody]) -> Response:
    return _token(await exchange.call(requests.GetToken(id=exchange.id)))


def _token(token: Token) -> Response:
    return json_response(token, version=_version(token))


def _version(token: Token) -> str:
    return version_of(token.id.encode(), token.created_at.encode(), msgspec.json.encode(token.spec))


async def create_token(exchange: Exchange[NoQuery, TokenBody]) -> Response:
    wanted = exchange.body.spec
    if wanted.expires_at is not None:
        wanted = msgspec.structs.replace(
            wanted, expires_at=_in_utc(wanted.expires_at, "/spec/expires_at")
        )
    issued = await exchange.call(requests.CreateToken(id=exchange.id, spec=wanted))
    return json_response(issued, status=201, location=exchange.path)


def _in_utc(moment: str, pointer: str) -> str:
    """A SentTimestamp as a Timestamp. Raises ApiError (422) for a day or an hour that isn't."""
    try:
        when = datetime.fromisoformat(moment.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ApiError.field(pointer, "This is not a valid time.") from error
    return when.isoformat().replace("+00:00", "Z")


async def delete_token(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Revoke a token at once."""

    async def current() -> str:
        return _version(await exchange.call(requests.GetToken(id=exchange.id)))

    await check_version(exchange.precondition, current)
    await exchange.call(requests.DeleteToken(id=exchange.id))
    return Response(status=204)


async def list_audit(exchange: Exchange[ListParameters, NoBody]) -> Response:
    """The audit trail, newest first."""
    return await answer_list(exchange, requests.ListAudit)


TAGS = {"access": "Claiming the host, and tokens."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="POST",
        path="/v1/claim",
        name="claim",
        tag="access",
        summary="Claim the host: exchange the one-time code on its screen for an admin token",
        handler=claim,
        role=None,
        body=ClaimBody,
        body_kind=BodyKind.JSON,
        examples={"as the console shows it": {"code": "ABCDE-FGHJK"}},
        replies=(
            Reply(status=201, description="The admin token.", body=IssuedToken, location=True),
        ),
        problems=(
            ErrorCode.UNAUTHENTICATED,
            ErrorCode.FORBIDDEN,
            ErrorCode.ALREADY_EXISTS,
            ErrorCode.CONFLICT,
            ErrorCode.RATE_LIMITED,
        ),
    ),
    Route(
        method="GET",
        path="/v1/whoami",
        name="getOwnToken",
        tag="access",
        summary="The token that this request carries",
        details="Its ID, role, description and expiry time, but not its secret.",
        handler=who_am_i,
        replies=(
            Reply(status=200, description="The token, without its secret.", body=Token, etag=True),
        ),
    ),
    Route(
        method="GET",
        path="/v1/tokens",
        name="listTokens",
        tag="access",
        summary="All tokens, without their secrets",
        handler=list_tokens,
        role=Role.ADMIN,
        query=list_parameters(TOKEN_LISTING),
        replies=(Reply(status=200, description="A page of tokens.", body=PageOf[Token]),),
    ),
    Route(
        method="GET",
        path="/v1/tokens/{id}",
        name="getToken",
        tag="access",
        summary="One token, without its secret",
        details="Its ID, role, description and expiry time.",
        handler=get_token,
        role=Role.ADMIN,
        replies=(Reply(status=200, description="The token.", body=Token, etag=True),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/v1/tokens/{id}",
        name="createToken",
        dry_run=False,
        tag="access",
        summary="Create a token; its secret is in this response and is never shown again",
        handler=create_token,
        role=Role.ADMIN,
        body=TokenBody,
        body_kind=BodyKind.JSON,
        examples={
            "for a monitor": {"spec": {"role": "viewer", "expires_at": "2099-01-01T00:00:00Z"}}
        },
        condition=Condition.CREATE,
        replies=(
            Reply(
                status=201, description="The token and its secret.", body=IssuedToken, location=True
            ),
        ),
        problems=(ErrorCode.ALREADY_EXISTS, ErrorCode.CONFLICT),
    ),
    Route(
        method="DELETE",
        path="/v1/tokens/{id}",
        name="deleteToken",
        dry_run=False,
        tag="access",
        summary="Revoke a token at once",
        handler=delete_token,
        role=Role.ADMIN,
        condition=Condition.MATCH,
        replies=(Reply(status=204, description="The token is revoked."),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="GET",
        path="/v1/audit",
        name="listAudit",
        tag="host",
        summary="The audit records since the host's start, newest first",
        handler=list_audit,
        role=Role.ADMIN,
        query=list_parameters(AUDIT_LISTING),
        replies=(Reply(status=200, description="A page of records.", body=AuditPage),),
    ),
)
