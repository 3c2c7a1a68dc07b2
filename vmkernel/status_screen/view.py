"""The status as text: pure functions from what is known to lines of plain ASCII.

The screen is made for 80 x 25. The serial line's block is stable: tools read it line by line.

    Mica <version> is ready
    Name: <hostname>
    API: https://<address>/              (one line an address; `API: no address` without any)
    TLS fingerprint (SHA-256): <64 hex digits>
    Claim code: <code>                   (`Claimed: yes` once it is spent)
    Finding: <severity> <code>: <message>
"""

from __future__ import annotations

import ipaddress
import textwrap
from dataclasses import dataclass

from vmkernel.model import Finding, Severity

__all__ = ["COLUMNS", "ROWS", "StatusView", "api_urls", "screen_lines", "serial_lines"]

COLUMNS = 80
ROWS = 25
_LABEL_WIDTH = 18
_INDENT = "  "
_MAX_URLS = 4
_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
_MARK = {Severity.ERROR: "!!", Severity.WARNING: "! ", Severity.INFO: "- "}


@dataclass(frozen=True)
class StatusView:
    """Everything that the console shows."""

    version: str
    hostname: str
    addresses: tuple[str, ...]
    """The host's own, in CIDR notation."""
    fingerprint_sha256: str | None
    claim_code: str | None
    """None once the host is claimed."""
    findings: tuple[Finding, ...]
    api_answers: bool = True
    notice: str | None = None
    """What happens to the host as a whole, such as its shutdown."""


def api_urls(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The API's URLs, routable addresses first; link-local ones only if there is no other."""
    plain = [ipaddress.ip_address(address.partition("/")[0]) for address in addresses]
    usable = [address for address in plain if not address.is_loopback]
    routable = [address for address in usable if not address.is_link_local]
    chosen = sorted(routable or usable, key=lambda address: (address.version, int(address)))
    return tuple(
        f"https://{address}/" if address.version == 4 else f"https://[{address}]/"
        for address in chosen
    )


def screen_lines(view: StatusView, columns: int = COLUMNS, rows: int = ROWS) -> list[str]:
    """The status screen; at most `rows` lines of at most `columns` characters."""
    width = min(columns, COLUMNS) - 2 * len(_INDENT)
    name = _ascii(view.hostname)
    lines = [
        "",
        f"Mica {view.version}".ljust(width - len(name)) + name,
        "-" * width,
        "",
    ]
    urls = api_urls(view.addresses) or ("no address yet",)
    lines += _labelled("API", [*urls[:_MAX_URLS]])
    if not view.api_answers:
        lines += _labelled("", ["(it does not answer yet)"])
    lines.append("")
    if view.fingerprint_sha256:
        lines += _labelled("TLS fingerprint", _groups(view.fingerprint_sha256))
        lines[-1] = "(SHA-256)".ljust(_LABEL_WIDTH) + lines[-1].strip()
        lines.append("")
    if view.claim_code:
        lines += _labelled("Claim code", [view.claim_code])
        lines += _labelled("", [f"mica claim {_host(urls)} --code {view.claim_code}"])
        lines.append("")
    if view.notice:
        lines += [*textwrap.wrap(_ascii(view.notice), width), ""]
    tail = ["", "This screen takes no input. The API is the only way in."]
    lines += _findings(view.findings, width, rows - 1 - len(lines) - len(tail))
    lines += tail
    return [(_INDENT + line).rstrip()[:columns] if line else "" for line in lines[:rows]]


def serial_lines(view: StatusView) -> list[str]:
    """The block for the serial line."""
    urls = api_urls(view.addresses)
    lines = [
        f"Mica {view.version} is ready" if view.api_answers else f"Mica {view.version} has no API",
        f"Name: {_ascii(view.hostname)}",
        *(f"API: {url}" for url in urls or ("no address",)),
    ]
    if view.fingerprint_sha256:
        lines.append(f"TLS fingerprint (SHA-256): {view.fingerprint_sha256}")
    lines.append(f"Claim code: {view.claim_code}" if view.claim_code else "Claimed: yes")
    lines += [
        f"Finding: {finding.severity} {finding.code}: {_ascii(finding.message)}"
        for finding in _ordered(view.findings)
    ]
    if view.notice:
        lines.append(f"Notice: {_ascii(view.notice)}")
    return lines


def _host(urls: tuple[str, ...]) -> str:
    return urls[0].removeprefix("https://").rstrip("/") if urls[0].startswith("http") else "HOST"


def _labelled(label: str, values: list[str]) -> list[str]:
    labels = [label] + [""] * (len(values) - 1)
    return [key.ljust(_LABEL_WIDTH) + value for key, value in zip(labels, values, strict=True)]


def _groups(digest: str) -> list[str]:
    """A digest in two lines of four groups of eight digits."""
    groups = [digest[start : start + 8] for start in range(0, len(digest), 8)]
    return [" ".join(groups[:4]), " ".join(groups[4:])]


def _ordered(findings: tuple[Finding, ...]) -> list[Finding]:
    return sorted(findings, key=lambda finding: (_RANK[finding.severity], finding.code))


def _findings(findings: tuple[Finding, ...], width: int, room: int) -> list[str]:
    """The findings, the gravest first; what has no room is counted."""
    if not findings:
        return ["No findings."]
    lines: list[str] = ["Findings"]
    ordered = _ordered(findings)
    for shown, finding in enumerate(ordered):
        mark = _MARK[finding.severity]
        wrapped = textwrap.wrap(_ascii(finding.message), width - len(mark) - 1)
        last = shown == len(ordered) - 1
        if len(lines) + len(wrapped) + (0 if last else 1) > room:
            lines.append(f"... and {len(ordered) - shown} more; GET /v1/host has them all.")
            break
        lines += [
            (f"{mark} " if index == 0 else " " * (len(mark) + 1)) + text
            for index, text in enumerate(wrapped)
        ]
    return lines


def _ascii(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)
