"""Syslog messages: RFC 5424's form, from the journal's lines and from events."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.model import Event, Subject
from vmkernel.syslog.message import Message, from_event, from_journal
from vmkernel.syslog.target import parse_target

TIME = "2026-11-23T09:33:09.123Z"
WORD = r"[\x21-\x7e]+"
FORM = re.compile(
    rf"<(\d{{1,3}})>1 ({WORD}) ({WORD}) ({WORD}) ({WORD}) ({WORD}) "
    rf'(-|\[mica@32473(?: {WORD}="(?:[^"\\\]]|\\["\\\]])*")*\])(?: (.*))?'
)


def sent(message: Message, limit: int = 2048) -> str:
    return message.encode("mica1", limit).decode()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"<30>Nov 23 09:33:09 systemd[1]: Started mica-api.service.\n",
            f"<30>1 {TIME} mica1 systemd 1 - - Started mica-api.service.",
        ),
        (
            b"<6>Nov  3 09:33:09 kernel: usb 1-1: new",
            f"<6>1 {TIME} mica1 kernel - - - usb 1-1: new",
        ),
        (b"<13>no tag here", f"<13>1 {TIME} mica1 - - - - no tag here"),
        (b"<13>two\nlines\tof it", f"<13>1 {TIME} mica1 - - - - two lines of it"),
        (b"nothing of all that", f"<13>1 {TIME} mica1 - - - - nothing of all that"),
        (b"<999>bad", f"<13>1 {TIME} mica1 - - - - <999>bad"),
        (b"", f"<13>1 {TIME} mica1 - - - -"),
    ],
)
def test_lines_of_the_journal(line: bytes, expected: str) -> None:
    assert sent(from_journal(line, TIME)) == expected


def test_text_beyond_ascii_is_marked() -> None:
    assert sent(from_journal("<13>vm: ünusual".encode(), TIME)).endswith("- - - \ufeffünusual")


def event(kind: str, **fields: object) -> Event:
    given = {"message": "", "data": {}, "actor": None, **fields}
    return Event(
        id="000000000001-000000000002",
        time=TIME,
        type=kind,
        subject=Subject(kind="vm", id="web"),
        **given,  # type: ignore[arg-type]
    )


def test_an_event_has_its_data_in_structure() -> None:
    told = event(
        "vm.state", message="Runs.", actor="admin", data={"to": "running", "n": 3, "x": None}
    )
    assert sent(from_event(told)) == (
        f"<134>1 {TIME} mica1 mica - vm.state [mica@32473 "
        'id="000000000001-000000000002" subject="vm/web" actor="admin" to="running" n="3"] Runs.'
    )


@pytest.mark.parametrize(
    ("kind", "priority"),
    [
        ("audit.changed", 13 * 8 + 6),
        ("audit.denied", 13 * 8 + 4),
        ("operation.failed", 16 * 8 + 4),
        ("host.stick-removed", 16 * 8 + 4),
        ("vm.created", 16 * 8 + 6),
    ],
)
def test_audit_has_its_facility_and_failures_their_severity(kind: str, priority: int) -> None:
    assert sent(from_event(event(kind))).startswith(f"<{priority}>1 ")


def test_nothing_in_an_event_breaks_out_of_its_field() -> None:
    told = event("x y\n", data={'a"]=': 'q"]\\\n<13>1', "subject": "forged"}, message="m\nn")
    text = sent(from_event(told))
    assert FORM.fullmatch(text)
    assert text.count("\n") == 0
    assert 'subject="vm/web"' in text
    assert "forged" not in text


@given(
    st.text(max_size=300),
    st.text(max_size=60),
    st.dictionaries(st.text(max_size=40), st.text(max_size=60), max_size=4),
    st.integers(min_value=480, max_value=2048),
)
def test_whatever_is_in_it_the_form_holds(
    text: str, name: str, data: dict[str, str], limit: int
) -> None:
    message = Message(13, TIME, name, text, kind=name, data=tuple(data.items()))
    encoded = message.encode(name, 1 << 20)
    assert FORM.fullmatch(encoded.decode())
    cut = message.encode(name, limit)
    assert len(cut) <= limit
    assert encoded.startswith(cut)
    cut.decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("udp://192.0.2.5", "udp://192.0.2.5:514"),
        ("tcp://log.example.org:6514", "tcp://log.example.org:6514"),
        ("udp://[2001:db8::5]:1", "udp://[2001:db8::5]:1"),
        ("tcp://h:0", None),
        ("tcp://h:65536", None),
        ("http://h", None),
        ("tcp://h:1\n", None),
        ("tcp://h/x", None),
    ],
)
def test_targets(text: str, shown: str | None) -> None:
    target = parse_target(text)
    assert (str(target) if target else None) == shown
