"""Which events a reader wants: by type, subject and labels; checked when it is made."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmkernel.model import EVENT_TYPES, ErrorCode, Event, FieldCode, FieldError, MicaError, Subject

__all__ = ["EVERYTHING", "EventFilter", "Labels", "SUBJECT_KINDS", "make_filter"]

Labels = Mapping[str, str]

SUBJECT_KINDS = (
    "datastore",
    "disk",
    "host",
    "image",
    "operation",
    "token",
    "upload",
    "vm",
    "volume",
    "webhook",
)
_ALWAYS = ("events.lost", "events.position")
"""What is about the stream itself passes every filter."""


@dataclass(frozen=True)
class EventFilter:
    """An event passes if it has one of the types, is about one of the subjects and about an object
    with all of the labels; what is empty lets all pass."""

    types: frozenset[str] = frozenset()
    subjects: frozenset[tuple[str, str | None]] = frozenset()
    """Kind and id; without an id, all of a kind."""
    labels: tuple[tuple[str, str | None], ...] = ()
    """Key and value; without a value, all that have the key."""

    def __bool__(self) -> bool:
        return bool(self.types or self.subjects or self.labels)

    def passes(self, event: Event, labels: Sequence[Labels]) -> bool:
        """True if the reader wants it. `labels` are the object's, before the change and after."""
        if event.type in _ALWAYS:
            return True
        if self.types and event.type not in self.types:
            return False
        if self.subjects and not any(map(self._is_wanted, _subjects(event))):
            return False
        return not self.labels or any(map(self._has_labels, labels))

    def _is_wanted(self, subject: Subject) -> bool:
        return not self.subjects.isdisjoint(((subject.kind, None), (subject.kind, subject.id)))

    def _has_labels(self, labels: Labels) -> bool:
        return all(key in labels and value in (None, labels[key]) for key, value in self.labels)


EVERYTHING = EventFilter()


def _subjects(event: Event) -> tuple[Subject, ...]:
    """What an event is about; that of an operation is also about the operation's subject."""
    kind, name = event.data.get("subject_kind"), event.data.get("subject_id")
    if event.subject.kind == "operation" and isinstance(kind, str) and isinstance(name, str):
        return event.subject, Subject(kind=kind, id=name)
    return (event.subject,)


def make_filter(
    types: Iterable[str] = (), subjects: Iterable[str] = (), labels: Iterable[str] = ()
) -> EventFilter:
    """A filter of what a client wrote: `vm.*`, `vm/web`, `env=prod`.

    Raises MicaError with a field error for each that can't be meant: `type`, `subject`, `label`.
    """
    wrong: list[FieldError] = []
    wanted_types: set[str] = set()
    for pattern in types:
        found = fnmatch.filter(EVENT_TYPES, pattern) if _is_pattern(pattern) else []
        if not found:
            allowed = ", ".join(EVENT_TYPES)
            detail = f"No event has the type {pattern[:80]!r}. The types are: {allowed}."
            wrong.append(_not_allowed("type", detail, allowed))
        wanted_types.update(found)
    wanted_subjects: set[tuple[str, str | None]] = set()
    for text in subjects:
        kind, slash, name = text.partition("/")
        if kind not in SUBJECT_KINDS or (slash and not name):
            detail = (
                f"{text[:80]!r} is no subject; write KIND or KIND/ID. The kinds are:"
                f" {', '.join(SUBJECT_KINDS)}."
            )
            wrong.append(_not_allowed("subject", detail, ", ".join(SUBJECT_KINDS)))
        wanted_subjects.add((kind, name or None))
    wanted_labels: list[tuple[str, str | None]] = []
    for text in labels:
        key, equals, value = text.partition("=")
        if not key:
            detail = f"{text[:80]!r} is no label; write KEY=VALUE, or KEY for any value."
            wrong.append(FieldError(pointer="label", detail=detail, code=FieldCode.WRONG_FORM))
        wanted_labels.append((key, value if equals else None))
    if wrong:
        told = " ".join(each.detail for each in wrong[:3])
        raise MicaError(ErrorCode.INVALID, told, fields=tuple(wrong))
    return EventFilter(frozenset(wanted_types), frozenset(wanted_subjects), tuple(wanted_labels))


def _not_allowed(pointer: str, detail: str, allowed: str) -> FieldError:
    parameters: dict[str, str | int | float] = {"allowed": allowed}
    return FieldError(
        pointer=pointer, detail=detail, code=FieldCode.NOT_ALLOWED, parameters=parameters
    )


def _is_pattern(text: str) -> bool:
    """Stars alone are wild, so that what is no type's name is not taken for one."""
    return not set(text) & set("?[]")
