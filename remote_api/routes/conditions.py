"""ETags and the conditional headers If-Match and If-None-Match (RFC 9110 section 13)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from remote_api.failures import ApiError
from remote_api.schema import ProblemCode

__all__ = ["Absent", "Precondition", "etag", "parse_precondition"]

_ETAG = re.compile(rb'"(0|[1-9][0-9]{0,17})"\Z')


class Absent(Enum):
    """The precondition `If-None-Match: *`: the object must not exist."""

    ABSENT = "absent"


Precondition = int | Absent | None
"""A revision that must still stand, the object's absence, or nothing."""


def etag(revision: int) -> str:
    """The entity tag of a revision."""
    return f'"{revision}"'


def parse_precondition(if_match: Sequence[bytes], if_none_match: Sequence[bytes]) -> Precondition:
    """The precondition that a request's headers express.

    Raises ApiError: 400 for a form that is not taken here; 412 for a tag that no revision has.
    """
    if if_match and if_none_match:
        raise ApiError(
            ProblemCode.REVISION_MISMATCH,
            "If-Match and If-None-Match together can't hold; send one of them.",
        )
    if if_none_match:
        if len(if_none_match) != 1 or if_none_match[0].strip() != b"*":
            raise ApiError(
                ProblemCode.MALFORMED, "If-None-Match takes only `*` here: the object must be new."
            )
        return Absent.ABSENT
    if not if_match:
        return None
    if len(if_match) != 1:
        raise ApiError(ProblemCode.MALFORMED, "If-Match takes one entity tag here.")
    match = _ETAG.match(if_match[0].strip())
    if match is None:
        raise ApiError(
            ProblemCode.REVISION_MISMATCH,
            "The entity tag in If-Match is none of this object's; take the ETag of a GET.",
        )
    return int(match[1])
