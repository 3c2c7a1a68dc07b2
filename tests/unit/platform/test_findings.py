"""Findings about the machine: each says the first thing that is wrong, and nothing else."""

from __future__ import annotations

import pytest

from vmkernel.model import Severity, VirtualisationInfo
from vmkernel.platform import findings


@pytest.mark.parametrize(
    ("ports", "carrier", "addresses", "waited", "code"),
    [
        (False, False, False, True, "no-network-port"),
        (True, False, False, False, "no-network-link"),
        (True, True, False, False, None),
        (True, True, False, True, "no-address"),
        (True, True, True, True, None),
    ],
)
def test_network(
    ports: bool, carrier: bool, addresses: bool, waited: bool, code: str | None
) -> None:
    found = findings.network_findings(
        ports=ports, carrier=carrier, addresses=addresses, waited=waited
    )
    assert [finding.code for finding in found] == ([code] if code else [])


def test_virtualisation_gives_its_reason() -> None:
    info = VirtualisationInfo(available=False, extension=None, accelerator="tcg", reason="Off.")
    (finding,) = findings.virtualisation(info)
    assert (finding.code, finding.message) == ("no-virtualisation", "Off.")
    info = VirtualisationInfo(available=True, extension="svm", accelerator="kvm")
    assert list(findings.virtualisation(info)) == []


def test_what_is_no_error_is_not_told_as_one() -> None:
    found = [
        *findings.boot_findings(secure_boot=False),
        *findings.clock_findings(synchronised=False, waited=True),
        *findings.unit_findings(["a.service"]),
    ]
    assert [finding.code for finding in found] == [
        "untrusted-boot",
        "time-not-synchronised",
        "unit-failed",
    ]
    assert all(finding.severity is not Severity.ERROR for finding in found)
    assert not [
        *findings.boot_findings(secure_boot=True),
        *findings.clock_findings(synchronised=False, waited=False),
        *findings.clock_findings(synchronised=True, waited=True),
    ]
