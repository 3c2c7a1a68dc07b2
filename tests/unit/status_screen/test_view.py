"""The status as text: what stands where, what fits, and that nothing else gets through."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmkernel.model import Finding, Severity
from vmkernel.status_screen.view import StatusView, api_urls, screen_lines, serial_lines

DIGEST = "0123456789abcdef" * 4


def view(**changes: object) -> StatusView:
    """A claimed host without findings, changed as asked."""
    values: dict[str, object] = {
        "version": "1.2.3",
        "hostname": "mica-1a2b",
        "addresses": ("10.0.2.15/24", "fec0::5054:ff:fe12:3456/64", "fe80::1/64"),
        "fingerprint_sha256": DIGEST,
        "claim_code": None,
        "findings": (),
    }
    return StatusView(**(values | changes))  # type: ignore[arg-type]


def finding(severity: Severity, code: str, message: str) -> Finding:
    """A finding."""
    return Finding(code=code, severity=severity, message=message)


def test_urls_name_routable_addresses_first_and_alone() -> None:
    assert api_urls(("fe80::1/64", "2001:db8::2/64", "192.0.2.7/24", "127.0.0.1/8")) == (
        "https://192.0.2.7/",
        "https://[2001:db8::2]/",
    )
    assert api_urls(("fe80::1/64",)) == ("https://[fe80::1]/",)
    assert api_urls(()) == ()


def test_serial_block_of_an_unclaimed_host() -> None:
    shown = view(
        claim_code="ABCDE-FGHJK",
        findings=(finding(Severity.INFO, "b", "two"), finding(Severity.ERROR, "a", "one")),
    )
    assert serial_lines(shown) == [
        "Mica 1.2.3 is ready",
        "Name: mica-1a2b",
        "API: https://10.0.2.15/",
        "API: https://[fec0::5054:ff:fe12:3456]/",
        f"TLS fingerprint (SHA-256): {DIGEST}",
        "Claim code: ABCDE-FGHJK",
        "Finding: error a: one",
        "Finding: info b: two",
    ]


def test_serial_block_of_a_claimed_host_has_no_code() -> None:
    lines = serial_lines(view(addresses=()))
    assert "API: no address" in lines
    assert "Claimed: yes" in lines
    assert not any("Claim code" in line for line in lines)


def test_serial_block_of_a_host_whose_api_does_not_answer_is_not_ready() -> None:
    assert serial_lines(view(api_answers=False))[0] == "Mica 1.2.3 has no API"


def test_screen_shows_the_code_and_how_to_use_it() -> None:
    text = "\n".join(screen_lines(view(claim_code="ABCDE-FGHJK")))
    assert "mica claim 10.0.2.15 --code ABCDE-FGHJK" in text
    assert "01234567 89abcdef 01234567 89abcdef" in text


@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_screen_counts_the_findings_that_have_no_room(count: int) -> None:
    findings = tuple(
        finding(Severity.WARNING, f"code-{n:02}", f"Something is wrong with thing {n}. " * 3)
        for n in range(count)
    )
    lines = screen_lines(view(findings=findings, claim_code="ABCDE-FGHJK"))
    text = "\n".join(lines)
    assert len(lines) <= 25
    if count == 60:
        assert "more; GET /v1/host has them all." in text
    assert "This screen takes no input." in text


TEXT = st.text(max_size=300)


@given(
    hostname=st.text(string.ascii_lowercase, min_size=1, max_size=63),
    messages=st.lists(TEXT, max_size=30),
    notice=st.none() | TEXT,
    code=st.none() | st.just("ABCDE-FGHJK"),
    fingerprint=st.none() | st.just(DIGEST),
)
def test_screen_always_fits_and_is_plain_ascii(
    hostname: str,
    messages: list[str],
    notice: str | None,
    code: str | None,
    fingerprint: str | None,
) -> None:
    shown = view(
        hostname=hostname,
        claim_code=code,
        notice=notice,
        fingerprint_sha256=fingerprint,
        findings=tuple(finding(Severity.ERROR, "x", message) for message in messages),
    )
    for lines in (screen_lines(shown), serial_lines(shown)):
        assert all(" " <= char <= "~" for line in lines for char in line)
    assert len(screen_lines(shown)) <= 25
    assert all(len(line) <= 80 for line in screen_lines(shown))
