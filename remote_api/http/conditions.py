"""Entity tags and the conditional headers If-Match and If-None-Match (RFC 9110 section 13).

A tag is `"VERSION-STATE"`. VERSION says what the object is wanted to be: its revision, or a digest
of what can't change. STATE is a digest of the whole answer, so that a tag is strong, and a `304 Not
Modified` hides no change of a status. A change is refused for another VERSION only: its owner
doesn't care whether a guest has started meanwhile. So `"7"` means revision 7 too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from remote_api.schema import ApiError, HttpCode
from vmkernel.model import ErrorCode

__all__ = [
    "Absent",
    "CODED_SUFFIX",
    "Matching",
    "Precondition",
    "check_version",
    "entity_tag",
    "expected_revision",
    "holds",
    "is_known",
    "mismatch",
    "parse_precondition",
    "version_of",
]

_TAG = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*(?:,|\Z)')
_REVISION = re.compile(r"(0|[1-9][0-9]{0,17})\Z")
_DIGEST_BYTES = 8
"""A tag distinguishes a handful of states that one client has seen, and guards no secret."""
_MAX_TAGS = 64
CODED_SUFFIX = "-gzip"
"""Of the tag of a compressed answer: a strong tag is of one form only."""


class Absent(Enum):
    """The precondition `If-None-Match: *`: the object must not exist."""

    ABSENT = "absent"


@dataclass(frozen=True)
class Matching:
    """The precondition If-Match: the object must exist, in one of these versions."""

    versions: frozenset[str] | None
    """None: in any (`*`)."""

    def admits(self, version: str) -> bool:
        """True if an object of this version may be changed."""
        return self.versions is None or version in self.versions


Precondition = Matching | Absent | None


def entity_tag(version: str, answer: bytes) -> str:
    """The tag of an answer; `version` is empty if the object has none."""
    return f'"{version}-{_digest(answer)}"'


def version_of(*parts: bytes) -> str:
    """The version of an object that has no revision, by what makes it the one that it is."""
    return _digest(b"\0".join(parts))


def parse_precondition(if_match: Sequence[bytes], if_none_match: Sequence[bytes]) -> Precondition:
    """The precondition that the headers of a change express.

    Raises ApiError: 412 for an invalid list of tags, and for two conditions that exclude each
    other.
    """
    if if_match and if_none_match:
        raise ApiError(
            ErrorCode.REVISION_MISMATCH,
            "Send If-Match or If-None-Match, not both.",
        )
    if if_none_match:
        if [value.strip() for value in if_none_match] != [b"*"]:
            raise ApiError.field(
                "If-None-Match",
                "Only `*` is allowed here: the object must not exist yet.",
                HttpCode.MALFORMED,
            )
        return Absent.ABSENT
    if not if_match:
        return None
    tags = _tags(if_match)
    if tags is None:
        return Matching(None)
    if not tags:
        raise ApiError.field(
            "If-Match",
            f'Send `*`, or entity tags as they came, with their quotes (`"7-0a1b"`); at most'
            f" {_MAX_TAGS}, separated by commas.",
            ErrorCode.REVISION_MISMATCH,
        )
    # Strong comparison: a weak tag is never the same.
    return Matching(frozenset(text.partition("-")[0] for weak, text in tags if not weak))


def holds(if_match: Sequence[bytes], etag: str) -> bool:
    """True if a representation with this tag may be sent (If-Match of a GET)."""
    tags = _tags(if_match) if if_match else None
    plain = _plain(etag.strip('"'))
    return tags is None or any(
        not weak and _plain(text) in (plain, plain.partition("-")[0]) for weak, text in tags
    )


def is_known(if_none_match: Sequence[bytes], etag: str) -> bool:
    """True if the client has the representation with this tag already (weak comparison)."""
    if not if_none_match:
        return False
    tags = _tags(if_none_match)
    return tags is None or any(_plain(text) == _plain(etag.strip('"')) for _, text in tags)


def _plain(text: str) -> str:
    """What is in a tag, whatever the coding of the answer that it came with: a client that has one
    form needs no other."""
    return text.removesuffix(CODED_SUFFIX)


async def expected_revision(
    precondition: Precondition, current: Callable[[], Awaitable[int]]
) -> int | None:
    """The one revision that a change is for; None if it is for any.

    `current` is asked if that depends on the object. Raises ApiError (412).
    """
    if not isinstance(precondition, Matching) or precondition.versions is None:
        return None
    if len(precondition.versions) == 1:
        (version,) = precondition.versions
        if _REVISION.match(version):
            return int(version)
    revision = await current()
    if not precondition.admits(str(revision)):
        raise mismatch()
    return revision


async def check_version(precondition: Precondition, current: Callable[[], Awaitable[str]]) -> None:
    """Raise ApiError (412) if a change is for another version than the present one.

    For objects that never change: nothing can happen between this check and the change.
    """
    if isinstance(precondition, Matching) and not precondition.admits(await current()):
        raise mismatch()


def mismatch() -> ApiError:
    """The object is not as If-Match wants it."""
    return ApiError(
        ErrorCode.REVISION_MISMATCH,
        "No entity tag in If-Match matches the object; read it again and repeat the change.",
    )


def _tags(values: Sequence[bytes]) -> list[tuple[bool, str]] | None:
    """The tags of a header, weak or not; None for `*`. An invalid list has none."""
    text = b",".join(values).strip(b" \t,")
    if text == b"*":
        return None
    tags: list[tuple[bool, str]] = []
    position = 0
    while position < len(text) and len(tags) <= _MAX_TAGS:
        match = _TAG.match(text, position)
        if match is None:
            break
        tags.append((match[1] is not None, match[2].decode("latin-1")))
        position = match.end()
        while text[position : position + 1] in (b" ", b"\t", b","):
            position += 1
    return [] if position < len(text) or len(tags) > _MAX_TAGS else tags


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
