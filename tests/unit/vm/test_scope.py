"""The table of scopes against the spec, the command line, the hot-plug planner, reverts, clones and
memory images. What is tested is found by reflection: a new field is tested without a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.unit.vm.spec_argv import UUID, command_line, host_of
from tests.unit.vm.spec_paths import BASE, changed, declared, decodes, paths
from vmkernel.devices import (
    DEVICES,
    SETTINGS,
    CdromPlan,
    DiskPlan,
    Family,
    NicPlan,
    UserBackend,
)
from vmkernel.devices.arguments import Command
from vmkernel.devices.hotplug import disk_commands, nic_commands
from vmkernel.devices.nic import link_commands
from vmkernel.model import CdromSpec, DiskSpec, ErrorCode, MicaError, NicSpec, VmSpec
from vmkernel.model.scope import Change, Scope
from vmkernel.model.vm import SCOPES
from vmkernel.model.vm_differences import differences, scope_of
from vmkernel.vm.context import VmContext
from vmkernel.vm.hotplug.plan import _FOLLOWED, Changes, plan_changes
from vmkernel.vm.hotplug.steps import removals_of, steps_of
from vmkernel.vm.spec.cloud_init.documents import seed_files
from vmkernel.vm.spec.defaults import with_defaults
from vmkernel.vm.spec.scope import after_revert, for_clone, is_host_only, without_host_fields
from vmkernel.vm.spec.validation import check_structure
from vmkernel.vm.start.files import disk_plan

PATHS = paths()
KEYS = {"disks[].key", "nics[].key", "cdroms[].key"}
"""Whoever changes one means another device."""
UNSEEN = {
    "nics[].port_group": "the network opens the tap on its bridge",
    "cloud_init.format": "it decides what user data may be, not what becomes of them",
}
"""What changes neither the command line, nor what QEMU is told before the guest runs, nor the seed,
with the reason."""


def scope(path: str) -> Scope:
    found = scope_of(path)
    assert found is not None
    return found


def test_every_field_has_a_scope_and_every_scope_a_field() -> None:
    assert [path for path in PATHS if scope_of(path) is None] == []
    known = {*PATHS, *(path.rpartition(".")[0] for path in PATHS)}
    assert [path for path in SCOPES if path not in known] == []


def test_an_unknown_field_has_no_scope() -> None:
    for path in ("zzz", "cpus.zzz", "disks[].zzz", "cpus", "watchdog.zzz"):
        assert scope_of(path) is None
    assert scope_of("disks[].limits.iops.per_s") is SCOPES["disks[].limits"]


@pytest.mark.parametrize("path", PATHS)
def test_another_value_is_a_legal_one(path: str) -> None:
    for spec in changed(path):
        assert decodes(spec) == spec
        check_structure(with_defaults(spec), Family.Q35)


@pytest.mark.parametrize("path", PATHS)
def test_a_difference_names_the_field(path: str) -> None:
    old, new = changed(path)
    found = list(differences(old, new))
    if path in KEYS:
        holder = path.removesuffix(".key")
        assert [(one.path, one.new is None) for one in found] == [(holder, False), (holder, True)]
        return
    (one,) = found
    assert one.path == declared(path)
    assert one.pointer.startswith(f"/spec/{path.partition('.')[0].removesuffix('[]')}")
    assert one.scope is scope(path)
    assert list(differences(new, new)) == []


def test_items_are_the_same_by_their_keys() -> None:
    turned = replace(BASE, disks=BASE.disks[::-1], nics=BASE.nics[::-1])
    assert list(differences(BASE, turned)) == []
    limited = replace(turned, disks=(turned.disks[0], replace(turned.disks[1], boot_index=4)))
    (found,) = differences(BASE, limited)
    assert (found.pointer, found.key, found.name) == (
        "/spec/disks/1/boot_index",
        "disk0",
        "disks.disk0.boot_index",
    )


# --- the guest sees it -------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_what_the_guest_sees_reaches_qemu_and_nothing_else_does(path: str) -> None:
    """A field that is stored and answered, and then forgotten on the way, fails here."""
    old, new = (_machine(spec) for spec in changed(path))
    guest = scope(path).guest and path not in UNSEEN
    assert (old != new) is guest, UNSEEN.get(path, path)


def _machine(spec: VmSpec) -> tuple[list[str], list[Command], dict[str, bytes]]:
    spec = replace(spec, template=False)
    wanted = spec.cloud_init
    seed = {} if wanted is None else seed_files(wanted, uuid=UUID, vm_id="web")
    told = [command for device in DEVICES for command in device.before_run(spec, False)]
    return command_line(spec), told, seed


@pytest.mark.parametrize("path", [p for p in PATHS if p.startswith(("disks[].", "nics[]."))])
def test_a_device_that_is_plugged_in_has_all_of_its_fields(path: str, tmp_path: Path) -> None:
    """By the same function as at a start; only the boot order is for the next start."""
    old, new = (
        _plugged(spec, host_of(tmp_path / name))
        for spec, name in zip(changed(path), "ab", strict=True)
    )
    seen = path not in UNSEEN and scope(path).change is not Change.NEXT_START
    assert (old != new) is seen


def _plugged(spec: VmSpec, host: VmContext) -> list[list[Command]]:
    disk, nic = spec.disks[0], spec.nics[0]
    return [
        disk_commands(
            disk_plan(spec, disk, host.storage.volume(disk.volume)),
            Family.Q35,
            tag="1",
            position=0,
        ),
        nic_commands(NicPlan.of(spec, nic, UserBackend()), Family.Q35),
        link_commands(spec, nic.key),
    ]


def test_a_new_field_of_a_device_can_not_be_forgotten(tmp_path: Path) -> None:
    class WiderNic(NicSpec, frozen=True, kw_only=True):
        unheard_of: int = 1

    class WiderDisk(DiskSpec, frozen=True, kw_only=True):
        unheard_of: int = 1

    class WiderDrive(CdromSpec, frozen=True, kw_only=True):
        unheard_of: int = 1

    with pytest.raises(TypeError, match="unheard_of"):
        NicPlan.of(BASE, WiderNic(key="nic0", mac="52:54:00:00:00:01"), UserBackend())
    volume = host_of(tmp_path).storage.volume("a")
    with pytest.raises(TypeError, match="unheard_of"):
        DiskPlan.of(BASE, WiderDisk(volume="a", key="disk0"), volume)
    with pytest.raises(TypeError, match="unheard_of"):
        CdromPlan.of(WiderDrive(key="cdrom0"), None)


# --- while it runs -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_a_running_vm_follows_as_the_scope_says(path: str, tmp_path: Path) -> None:
    old, new = changed(path)
    match scope(path).change:
        case Change.HOST_ONLY | Change.NEXT_START:
            assert _plan(old, new) == Changes()
        case Change.LIVE:
            for before, after in ((old, new), (new, old)):
                if path in ("cpus.count", "memory_bytes") and before is new:
                    continue  # they only grow
                assert _plan(before, after) != Changes()
        case Change.POWERED_OFF | Change.CREATION:
            with pytest.raises(MicaError) as caught:
                _plan(old, new)
            assert caught.value.problem.code is ErrorCode.CONFLICT
            pointers = {found.pointer for found in caught.value.problem.fields}
            assert pointers == {one.pointer for one in differences(old, new)}


def test_what_is_live_is_a_setting_or_planned() -> None:
    """Each by one of them, and nothing else is."""
    live = {path for path, found in SCOPES.items() if found.change is Change.LIVE}
    assert not SETTINGS.keys() & _FOLLOWED.keys()
    assert {*SETTINGS, *_FOLLOWED} == live - KEYS


@pytest.mark.parametrize("path", [p for p in PATHS if scope(p).change is Change.LIVE])
def test_what_is_live_is_done_in_steps(path: str, tmp_path: Path) -> None:
    old, new = changed(path)
    changes = _plan(old, new)
    steps = steps_of(host_of(tmp_path), changes, old, new, Family.Q35)
    assert [*steps, *removals_of(changes, old)]
    for step in steps:  # undone, the spec is the old one again
        if path in SETTINGS:
            assert step.unmark(new) == old


def _plan(old: VmSpec, new: VmSpec) -> Changes:
    return plan_changes(old, new, at_start=old, family=Family.Q35)


# --- reverts, clones, memory images ------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_a_revert_leaves_what_is_the_hosts(path: str) -> None:
    then, now = changed(path)
    assert after_revert(now, then) == (then if scope(path).guest else now)


def test_a_revert_knows_devices_by_their_keys() -> None:
    """Nothing of a device is the host's alone today; what it has stays with its key."""
    now = replace(BASE, disks=(DiskSpec(volume="new", key="disk5"), *BASE.disks))
    assert after_revert(now, BASE) == BASE


@pytest.mark.parametrize("path", PATHS)
def test_a_clone_has_the_same_but_what_is_its_own(path: str) -> None:
    base, source = changed(path)
    clone, other = (for_clone(spec, datastore="main", name="copy") for spec in (source, base))
    assert (clone == other) is scope(path).own
    assert clone.datastore == "main"
    assert clone.name == "copy"
    assert all(nic.mac is None for nic in clone.nics)
    assert clone.vsock is None or clone.vsock.cid is None


@pytest.mark.parametrize("path", PATHS)
def test_a_memory_image_has_nothing_of_the_hosts(path: str) -> None:
    old, new = changed(path)
    kept = without_host_fields(new) == without_host_fields(old)
    seen = scope(path)
    if path == "datastore":  # it has no default
        assert not kept
    else:
        assert kept is (not seen.guest or seen.first_start)


@pytest.mark.parametrize("path", PATHS)
def test_what_is_the_hosts_alone_can_change_in_any_state(path: str) -> None:
    assert is_host_only(*changed(path)) is (scope(path).change is Change.HOST_ONLY)


def test_an_order_is_no_business_of_the_hosts() -> None:
    """The units of a SATA controller are counted in the order of the list."""
    more: dict[str, Any] = {
        "disks": BASE.disks[::-1],
        "nics": BASE.nics[::-1],
        "cdroms": BASE.cdroms[::-1],
    }
    for name, items in more.items():
        assert not is_host_only(BASE, replace(BASE, **{name: items}))
