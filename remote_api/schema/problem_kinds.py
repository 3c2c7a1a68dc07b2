"""Every kind of problem explained: what happened, and what to do. `GET /v1/problems` serves it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from remote_api.schema.problems import PROBLEM_CODES, HttpCode, ProblemCode, status_of
from vmkernel.model import ErrorCode, Record

__all__ = ["PROBLEM_KINDS", "ProblemKind", "ProblemKinds"]


class ProblemKind(Record, frozen=True, kw_only=True):
    """One kind of problem, explained."""

    code: Annotated[str, Meta(examples=["not-found"])]
    status: int
    """The HTTP status that goes with it unless an answer says another."""
    title: str
    meaning: str
    """What happened."""
    advice: str
    """What to do."""


class ProblemKinds(Record, frozen=True, kw_only=True):
    """All kinds of problems."""

    items: tuple[ProblemKind, ...]


_EXPLAINED: dict[ProblemCode, tuple[str, str]] = {
    ErrorCode.INVALID: (
        "One or more fields, parameters or headers have values that can't be used. Nothing was"
        " changed.",
        "Correct what `errors` names: `pointer` is the place, `code` the kind of fault and"
        " `parameters` its limits.",
    ),
    ErrorCode.UNAUTHENTICATED: (
        "The request has no token, or the token is unknown, expired or revoked.",
        "Send `Authorization: Bearer TOKEN`. Claim the host, or ask an administrator for a token.",
    ),
    ErrorCode.FORBIDDEN: (
        "The token is valid, but its role doesn't include this request.",
        "Use a token with the role that `detail` names.",
    ),
    ErrorCode.NOT_FOUND: (
        "There is no such path or object, or the object was deleted.",
        "Check the name; a list shows what exists.",
    ),
    ErrorCode.ALREADY_EXISTS: (
        "An object of that name exists. The status is 412 if the request said `If-None-Match: *`.",
        "Choose another name, or change the existing object with its ETag in `If-Match`.",
    ),
    ErrorCode.REVISION_MISMATCH: (
        "The object was changed after the client read it. Nothing was changed.",
        "Read the object again, repeat the change, and send its new ETag.",
    ),
    ErrorCode.CONFLICT: (
        "The state of the object, or of something that it needs, doesn't allow this now.",
        "Do what `detail` says, for example stop the VM, then repeat the request.",
    ),
    ErrorCode.ALREADY_IN_STATE: (
        "The object is already as this action would make it, or on its way there.",
        "Nothing needs to be done; read the object to see its state.",
    ),
    ErrorCode.IN_USE: (
        "Something else uses the object; `detail` names it.",
        "Remove that use first, or wait until it ends.",
    ),
    ErrorCode.INSUFFICIENT_SPACE: (
        "The datastore has too little free space for this. Nothing is left behind.",
        "Free space on the datastore or choose another one, then repeat the request.",
    ),
    ErrorCode.INSUFFICIENT_RESOURCES: (
        "The host has too little memory or too few CPUs left.",
        "Stop other VMs, or give this one less.",
    ),
    ErrorCode.WIPE_NOT_CONFIRMED: (
        "The disk may have data, and the request doesn't confirm that they may be lost.",
        "Check which disk it is; then repeat the request with the confirmation that `detail`"
        " names.",
    ),
    ErrorCode.DIGEST_MISMATCH: (
        "The received data do not have the announced digest. They were discarded.",
        "Check the digest and send the data again.",
    ),
    ErrorCode.TRUNCATED: (
        "The data ended before their announced length. They were discarded, or a resumable"
        " upload keeps them.",
        "Send the data again, or resume the upload.",
    ),
    ErrorCode.GONE: (
        "What was asked for is no longer kept, such as the events after an old one.",
        "List the objects again, and follow from the `Mica-Event-Id` of that answer.",
    ),
    ErrorCode.INTERRUPTED: (
        "The host's management service ended while an operation ran.",
        "Look at the object, and repeat the request if it is not as you want it.",
    ),
    ErrorCode.UNSUPPORTED: (
        "This host, its hardware or the object's kind doesn't support this.",
        "Do what `detail` says, or use another host.",
    ),
    ErrorCode.RATE_LIMITED: (
        "Too many requests, attempts or open streams of one user or address.",
        "Repeat the request after the seconds in `Retry-After`.",
    ),
    ErrorCode.TIMED_OUT: (
        "The host didn't finish in time; whether the change was made is unknown.",
        "Read the object before you repeat the request.",
    ),
    ErrorCode.UNAVAILABLE: (
        "A part of the host can't answer now: it starts, stops or is busy.",
        "Repeat the request after the seconds in `Retry-After`.",
    ),
    ErrorCode.INTERNAL: (
        "A defect in Mica. The host's log has the details under the request's ID.",
        "Report it with the ID in `instance`.",
    ),
    HttpCode.MALFORMED: (
        "The request doesn't follow HTTP, or its query or JSON can't be parsed.",
        "Correct the request; `detail` says what can't be read.",
    ),
    HttpCode.METHOD_NOT_ALLOWED: (
        "The path exists, but not with this method.",
        "Use a method that the header `Allow` names.",
    ),
    HttpCode.NOT_ACCEPTABLE: (
        "The client's `Accept` header excludes every form that the answer has.",
        "Accept the media type that `detail` names, or omit the header.",
    ),
    HttpCode.REQUEST_TIMEOUT: (
        "The request's body arrived too slowly or stopped.",
        "Send it again; use a resumable upload for large data on a slow line.",
    ),
    HttpCode.LENGTH_REQUIRED: (
        "The request has a body of unknown length.",
        "Send `Content-Length` with the size of the body.",
    ),
    HttpCode.TOO_LARGE: (
        "The request's body is larger than this request allows.",
        "Send less; `detail` has the limit.",
    ),
    HttpCode.UNSUPPORTED_MEDIA_TYPE: (
        "The body has another media type, or a coding, that this request doesn't take.",
        "Send the `Content-Type` that `detail` names.",
    ),
    HttpCode.UPGRADE_REQUIRED: (
        "The path is a WebSocket, and the request didn't ask for an upgrade.",
        "Open it with a WebSocket client.",
    ),
    HttpCode.HEAD_TOO_LARGE: (
        "The request's line and header fields are too large together.",
        "Send fewer or shorter header fields.",
    ),
    HttpCode.PRECONDITION_REQUIRED: (
        "The request would create or replace a whole object without saying which.",
        "Send `If-None-Match: *` to create it, or its ETag in `If-Match` to replace it.",
    ),
    HttpCode.RANGE_NOT_SATISFIABLE: (
        "The requested range begins after the end of the data.",
        "Ask for a range within the size in `Content-Range`.",
    ),
    HttpCode.PROTOCOL_VERSION: (
        "The upload uses another version of the tus protocol.",
        "Use tus 1.0.0.",
    ),
    HttpCode.CHECKSUM_MISMATCH: (
        "A part of an upload doesn't have its checksum. The part was discarded.",
        "Send the part again.",
    ),
    HttpCode.CANCELLED: (
        "The operation that the request waited for was cancelled.",
        "Start it again if it is still wanted.",
    ),
}

PROBLEM_KINDS = {
    code.value: ProblemKind(
        code=code.value,
        status=status_of(code),
        title=code.headline,
        meaning=_EXPLAINED[code][0],
        advice=_EXPLAINED[code][1],
    )
    for code in PROBLEM_CODES
}
"""By code."""
