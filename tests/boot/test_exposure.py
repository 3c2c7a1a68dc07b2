"""How exposed each service of the image is, as systemd rates it in the built root (0 to 10).
The ceilings hold what was reached; when a service gets better, lower its own."""

from __future__ import annotations

import re

import pytest

from appliance_build.inputs.run import run
from appliance_build.tools.sandbox import LIBRARIES
from tests.framework import inputs

CEILINGS = {
    "mica-api.service": 1.0,
    "mica-coldplug-first.service": 6.5,
    "mica-coldplug.service": 6.7,
    "mica-driver@.service": 4.8,
    "mica-trouble-screen@.service": 4.8,
    "mica-trouble-serial@.service": 4.8,
    "mica-vm@.service": 1.8,
    "mica-vmkernel.service": 5.2,
    "systemd-journald.service": 4.7,
    "systemd-networkd.service": 2.9,
    "systemd-poweroff.service": 9.4,
    "systemd-reboot.service": 9.4,
    "systemd-sysctl.service": 9.4,
    "systemd-timesyncd.service": 2.1,
    "systemd-udevd.service": 7.0,
}
ROOT = inputs.BUILD / "rootfs"


def test_every_service_has_a_ceiling() -> None:
    assert {path.name for path in (ROOT / "usr/lib/systemd/system").glob("*.service")} == set(
        CEILINGS
    )


@pytest.mark.parametrize("unit", sorted(CEILINGS))
def test_a_unit_is_no_more_exposed_than_it_was(unit: str) -> None:
    tree = inputs.tools()
    libraries = tree / LIBRARIES
    shown = run(
        [
            *(libraries / "ld-linux-x86-64.so.2", "--library-path"),
            f"{libraries}:{libraries / 'systemd'}",
            *(tree / "usr/bin/systemd-analyze", "security", "--offline=yes", "--no-pager"),
            *(f"--root={ROOT}", unit.replace("@.", "@instance.")),
        ],
        timeout_s=60,
    )
    found = re.search(r"exposure level for \S+ ([0-9.]+) ", shown)
    assert found is not None, shown[-500:]
    assert float(found[1]) <= CEILINGS[unit]
