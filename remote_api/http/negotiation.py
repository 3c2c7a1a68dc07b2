"""Media types: what a client accepts (RFC 9110 section 12.5.1), and what its body is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from remote_api.http.exchange import Headers
from remote_api.http.problems import PROBLEM_TYPE
from remote_api.http.routing import AnyRoute
from remote_api.schema import ApiError, HttpCode

__all__ = ["check_accept", "check_media_type", "preferred"]

_QUALITY = re.compile(r"q=(1(?:\.0{0,3})?|0(?:\.\d{0,3})?)\Z", re.I)


def check_accept(headers: Headers, route: AnyRoute) -> None:
    """Raise ApiError (406) if the client takes nothing that the route answers.

    Without a header, or with an empty one, it takes anything; so it does if there is no body to
    choose for. Problems are an answer of every route: a client that names their type is served.
    """
    offered = {
        each
        for reply in route.replies
        if reply.body is not None
        for each in (reply.media_type, *reply.also)
    }
    ranges = _ranges(headers)
    if not offered or not ranges or ranges.get(PROBLEM_TYPE, 0.0) > 0:
        return
    if not any(_quality(mine, ranges) > 0 for mine in offered):
        raise ApiError.field(
            "Accept", f"The answer is {' or '.join(sorted(offered))}.", HttpCode.NOT_ACCEPTABLE
        )


def preferred(headers: Headers, offered: Sequence[str]) -> str:
    """The media type that the client likes best; of several such, the first that is offered."""
    ranges = _ranges(headers) or {"*/*": 1.0}
    return max(offered, key=lambda media: _quality(media, ranges))


def check_media_type(headers: Headers, route: AnyRoute) -> None:
    """Raise ApiError (415) if the body is of another type than the route takes."""
    wanted = route.body_kind.value
    coding = b",".join(headers.get(b"content-encoding", [])).strip().lower()
    if coding not in (b"", b"identity"):
        raise ApiError(HttpCode.UNSUPPORTED_MEDIA_TYPE, "Send the body without a Content-Encoding.")
    values = headers.get(b"content-type", [])
    media, *parameters = values[0].decode("latin-1").split(";") if len(values) == 1 else [""]
    charsets = [part.strip().lower() for part in parameters]
    if media.strip().lower() != wanted or any(
        part.startswith("charset=") and part not in ("charset=utf-8", 'charset="utf-8"')
        for part in charsets
    ):
        raise ApiError(
            HttpCode.UNSUPPORTED_MEDIA_TYPE,
            f"Send the body as `Content-Type: {wanted}`.",
            headers={"accept-patch" if route.method == "PATCH" else "accept": wanted},
        )


def _ranges(headers: Headers) -> dict[str, float]:
    """The ranges that the client accepts, and how much it likes each; parameters are let pass."""
    ranges: dict[str, float] = {}
    for entry in b",".join(headers.get(b"accept", [])).decode("latin-1").split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        if not media:
            continue
        # What is no quality by the standard counts as none given.
        found = [match for part in parameters if (match := _QUALITY.match(part))]
        quality = float(found[0][1]) if found else 1.0
        media = "*/*" if media == "*" else media.lower()
        ranges[media] = max(quality, ranges.get(media, 0.0))
    return ranges


def _quality(offered: str, ranges: dict[str, float]) -> float:
    """How much the client likes a type: the most precise range that names it decides."""
    for each in (offered, offered.partition("/")[0] + "/*", "*/*"):
        if each in ranges:
            return ranges[each]
    return 0.0
