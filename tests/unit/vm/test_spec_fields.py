"""The table of whose business each field of a spec is, against the spec itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from vmkernel.devices import Family
from vmkernel.model import (
    AutostartSpec,
    BootSpec,
    CdromSpec,
    CloudInitSpec,
    CpuSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    GuestOs,
    HotPlugSpec,
    MemorySpec,
    MicaError,
    NicSpec,
    OnPanic,
    RestartPolicy,
    RestartSpec,
    StopSpec,
    VmSpec,
    VsockSpec,
    WatchdogSpec,
)
from vmkernel.model.vm_hardware import Clock, ClockSpec
from vmkernel.vm.plugging.plan import plan_changes
from vmkernel.vm.spec_defaults import with_defaults
from vmkernel.vm.spec_fields import (
    FIELDS,
    FREE_WHILE_RUNNING,
    Business,
    after_revert,
    for_clone,
    without_host_fields,
)

THEN = with_defaults(VmSpec(datastore="main", nics=(NicSpec(mac="52:54:00:00:00:01"),)))
OTHER: dict[str, Any] = {
    "datastore": "other",
    "name": "another",
    "description": "another",
    "labels": {"a": "b"},
    "guest_os": GuestOs.WINDOWS,
    "cpus": CpuSpec(count=3),
    "memory_bytes": 1 << 30,
    "memory": MemorySpec(balloon=False),
    "firmware": Firmware.BIOS,
    "clock": ClockSpec(base=Clock.LOCAL),
    "disks": (DiskSpec(volume="v"),),
    "cdroms": (CdromSpec(image="i"),),
    "nics": (NicSpec(mac="52:54:00:00:00:02", key="nic3"),),
    "hot_plug": HotPlugSpec(disks=2),
    "boot": BootSpec(menu_s=7),
    "display": DisplayModel.NONE,
    "serial_ports": 3,
    "tablet": False,
    "keyboard": True,
    "rng": False,
    "guest_agent": False,
    "tpm": True,
    "watchdog": WatchdogSpec(),
    "vsock": VsockSpec(cid=7),
    "cloud_init": CloudInitSpec(),
    "template": True,
    "restart": RestartSpec(policy=RestartPolicy.ALWAYS),
    "autostart": AutostartSpec(enabled=True),
    "stop": StopSpec(timeout_s=7),
    "on_panic": OnPanic.PAUSE,
}
"""Another value of each field."""
NAMES = [info.name for info in msgspec.structs.fields(VmSpec)]


def test_every_field_has_its_place_in_the_table() -> None:
    assert set(FIELDS) == set(NAMES)
    assert set(OTHER) == set(NAMES)
    assert all(getattr(THEN, name) != OTHER[name] for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_revert_leaves_what_is_the_hosts(name: str) -> None:
    now = replace(THEN, **{name: OTHER[name]})
    after = after_revert(now, THEN)
    stays = FIELDS[name] in (Business.HOST, Business.PLACE)
    assert after == (now if stays else THEN)


@pytest.mark.parametrize("name", NAMES)
def test_a_clone_has_the_same_but_what_is_its_own(name: str) -> None:
    source = replace(THEN, **{name: OTHER[name]})
    clone = for_clone(source, datastore="main", name="copy")
    if name in ("datastore", "name", "autostart", "template"):
        assert clone == for_clone(THEN, datastore="main", name="copy")
    elif FIELDS[name] is not Business.IDENTITY:
        assert getattr(clone, name) == OTHER[name]
    assert all(nic.mac is None for nic in clone.nics)
    assert clone.vsock is None or clone.vsock.cid is None


@pytest.mark.parametrize("name", NAMES)
def test_a_memory_image_has_nothing_of_the_hosts(name: str) -> None:
    kept = without_host_fields(replace(THEN, **{name: OTHER[name]}))
    gone = name != "datastore" and (
        FIELDS[name] in (Business.HOST, Business.PLACE) or name == "cloud_init"
    )
    assert (kept == without_host_fields(THEN)) is gone


@pytest.mark.parametrize("name", NAMES)
def test_only_the_hosts_fields_are_free_while_a_vm_runs(name: str) -> None:
    """A field that nobody thought of can't change: it would not reach QEMU."""
    new = with_defaults(replace(THEN, **{name: OTHER[name]}), THEN)
    try:
        changes = plan_changes(THEN, new, at_start=THEN, family=Family.Q35, free=FREE_WHILE_RUNNING)
    except MicaError:
        assert FIELDS[name] is not Business.HOST
        return
    if FIELDS[name] is Business.HOST:
        assert changes == type(changes)()
