"""The pages that problem types lead to: each kind of problem, explained for people and programs."""

from __future__ import annotations

from html import escape

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.negotiation import preferred
from remote_api.http.routing import AnyRoute, NoBody, Reply, Route
from remote_api.schema import PROBLEM_KINDS, ApiError, NoQuery, ProblemKind, ProblemKinds
from vmkernel.model import ErrorCode

__all__ = ["ROUTES"]

_JSON, _HTML = "application/json", "text/html"


async def list_problems(_exchange: Exchange[NoQuery, NoBody]) -> Response:
    """All kinds of problems; nothing of them is about this host, so that no token is needed."""
    return json_response(ProblemKinds(items=tuple(PROBLEM_KINDS.values())))


async def get_problem(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """One kind of problem, as a page for browsers and as JSON for others."""
    kind = PROBLEM_KINDS.get(exchange.id)
    if kind is None:
        raise ApiError(ErrorCode.NOT_FOUND, f"There is no kind of problem {exchange.id}.")
    if preferred(exchange.headers, (_JSON, _HTML)) == _JSON:
        return json_response(kind)
    return Response(status=200, body=_page(kind).encode(), media_type=f"{_HTML}; charset=utf-8")


def _page(kind: ProblemKind) -> str:
    title = escape(kind.title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title} - Mica</title>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f"<p>Code <code>{escape(kind.code)}</code>, HTTP status {kind.status}.</p>\n"
        f"<h2>What happened</h2>\n<p>{escape(kind.meaning)}</p>\n"
        f"<h2>What to do</h2>\n<p>{escape(kind.advice)}</p>\n</body>\n</html>\n"
    )


TAGS = {"problems": "What failures mean, and what to do."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/problems",
        name="listProblems",
        summary="All kinds of problems, explained",
        details="An answer's `code` is one of these.",
        handler=list_problems,
        role=None,
        replies=(Reply(status=200, description="Every kind of problem.", body=ProblemKinds),),
    ),
    Route(
        method="GET",
        path="/v1/problems/{id}",
        name="getProblem",
        summary="One kind of problem, explained; a problem's `type` leads here",
        details="Browsers get a page.",
        handler=get_problem,
        role=None,
        replies=(
            Reply(
                status=200,
                description="What it means, and what to do.",
                body=ProblemKind,
                also=(_HTML,),
            ),
        ),
    ),
)
