"""Syslog messages in the form of RFC 5424; pure.

    <PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG

Log lines come from the journal in the older form of RFC 3164, without year and zone:

    <PRI>Nov 23 09:33:09 sshd[123]: text
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import IntEnum

from vmkernel.model import Event

__all__ = ["Facility", "Message", "Severity", "from_event", "from_journal"]

SD_ID = "mica@32473"
"""32473 is the enterprise number for those without one (RFC 5612)."""

_LINE = re.compile(
    r"<(?P<priority>\d{1,3})>(?:[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d )?"
    r"(?:(?P<app>[^\s:\[]{1,64})(?:\[(?P<process>\d+)\])?: )?(?P<text>.*)",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]+")
_SD_NAME = re.compile(r'[^\x21-\x7e]+|[="\]]+')
_MAX_PRIORITY = 191
_BOM = "\ufeff"
_BAD = re.compile(r"[.-](?:crashed|denied|failed|invalid|lost|not-kept|stick-removed|unusable)$")


class Facility(IntEnum):
    """The origin of a message (RFC 5424 section 6.2.1); only those that are used here."""

    USER = 1
    AUDIT = 13
    LOCAL0 = 16


class Severity(IntEnum):
    """How bad it is (RFC 5424 section 6.2.1); those that are used here."""

    WARNING = 4
    NOTICE = 5
    INFO = 6


@dataclass(frozen=True)
class Message:
    """One message, without the host's fields."""

    priority: int
    time: str
    """RFC 3339."""
    app: str
    text: str
    process: str = ""
    kind: str = ""
    """MSGID: the type of an event."""
    data: tuple[tuple[str, str], ...] = ()

    def encode(self, hostname: str, limit_bytes: int) -> bytes:
        """The message as it is sent, cut at `limit_bytes` (not within a character)."""
        head = " ".join(
            (
                f"<{self.priority}>1",
                self.time,
                _word(hostname, 255),
                _word(self.app, 48),
                _word(self.process, 128),
                _word(self.kind, 32),
                _structured(self.data),
            )
        )
        text = _CONTROL.sub(" ", self.text).strip()
        if text and not text.isascii():
            text = _BOM + text
        whole = f"{head} {text}".rstrip().encode("utf-8", "replace")
        if len(whole) <= limit_bytes:
            return whole
        return whole[:limit_bytes].decode("utf-8", "ignore").encode()


def from_journal(line: bytes, time: str) -> Message:
    """A line as journald passes it to a syslog socket; `time` is when it arrived."""
    text = line.decode("utf-8", "replace").rstrip("\n\0")
    match = _LINE.fullmatch(text)
    if match is None or int(match["priority"]) > _MAX_PRIORITY:
        return Message(_priority(Facility.USER, Severity.NOTICE), time, "", text)
    return Message(
        priority=int(match["priority"]),
        time=time,
        app=match["app"] or "",
        process=match["process"] or "",
        text=match["text"],
    )


def from_event(event: Event) -> Message:
    """An event of the vmkernel; audit events have a facility of their own."""
    facility = Facility.AUDIT if event.type.startswith("audit.") else Facility.LOCAL0
    severity = Severity.WARNING if _BAD.search(event.type) else Severity.INFO
    subject = f"{event.subject.kind}/{event.subject.id}"
    data = [("id", event.id), ("subject", subject)]
    if event.actor is not None:
        data.append(("actor", event.actor))
    taken = {name for name, _ in data}
    for name, value in event.data.items():
        if value is not None and name not in taken:
            data.append((name, value if isinstance(value, str) else json.dumps(value)))
    return Message(
        priority=_priority(facility, severity),
        time=event.time,
        app="mica",
        kind=event.type,
        data=tuple(data),
        text=event.message or f"{event.type} {subject}",
    )


def _priority(facility: Facility, severity: Severity) -> int:
    return facility * 8 + severity


def _word(text: str, limit: int) -> str:
    return _NOT_PRINTABLE.sub("_", text)[:limit] or "-"


def _structured(data: tuple[tuple[str, str], ...]) -> str:
    if not data:
        return "-"
    parts = [SD_ID]
    for name, value in data:
        shown = _CONTROL.sub(" ", value)
        for special in ("\\", '"', "]"):
            shown = shown.replace(special, f"\\{special}")
        parts.append(f'{_SD_NAME.sub("_", name)[:32] or "_"}="{shown}"')
    return f"[{' '.join(parts)}]"
