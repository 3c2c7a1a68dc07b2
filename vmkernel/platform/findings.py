"""Findings about the machine: pure functions from observations to findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmkernel.model import Finding, Severity, VirtualisationInfo

__all__ = ["boot_findings", "clock_findings", "network_findings", "unit_findings", "virtualisation"]


def virtualisation(info: VirtualisationInfo) -> Iterator[Finding]:
    """Guests that can't run on the processor."""
    if not info.available:
        yield Finding(
            code="no-virtualisation",
            severity=Severity.ERROR,
            message=info.reason or "Guests can't run on the processor.",
        )


def network_findings(
    *, ports: bool, carrier: bool, addresses: bool, waited: bool
) -> Iterator[Finding]:
    """The first thing on the way to an address that is missing."""
    if not ports:
        yield Finding(
            code="no-network-port",
            severity=Severity.ERROR,
            message="The machine has no wired network port that a driver in this image supports.",
        )
    elif not carrier:
        yield Finding(
            code="no-network-link",
            severity=Severity.ERROR,
            message="No wired network port has a link; plug in a cable or switch on its peer.",
        )
    elif waited and not addresses:
        yield Finding(
            code="no-address",
            severity=Severity.ERROR,
            message="The network assigned no address; check its DHCP server and the VLAN.",
        )


def boot_findings(*, secure_boot: bool) -> Iterator[Finding]:
    """Missing facts about how the host was started."""
    if not secure_boot:
        yield Finding(
            code="untrusted-boot",
            severity=Severity.INFO,
            message="Secure Boot was off: the firmware did not check what it started.",
        )


def clock_findings(*, synchronised: bool, waited: bool) -> Iterator[Finding]:
    """A clock that was never set."""
    if waited and not synchronised:
        yield Finding(
            code="time-not-synchronised",
            severity=Severity.INFO,
            message="No time server has answered yet; the clock is the machine's own.",
        )


def unit_findings(failed: Iterable[str]) -> Iterator[Finding]:
    """Failed units that are not restarted."""
    for unit in failed:
        yield Finding(
            code="unit-failed",
            severity=Severity.WARNING,
            message=f"{unit} failed; its part of the host may be missing until the next start.",
            subject=unit,
        )
