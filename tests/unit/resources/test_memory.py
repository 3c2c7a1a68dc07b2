"""Memory: what fits, and the words where it doesn't."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.framework.repository import REPOSITORY
from vmkernel.devices import Accelerator
from vmkernel.model import ErrorCode, MicaError
from vmkernel.resources import (
    MemoryAdmission,
    MemoryFigures,
    expected_bytes,
    host_memory,
    limit_bytes,
    reserve_bytes,
)
from vmkernel.resources.memory import VMKERNEL_PERCENT

MIB = 1 << 20


def admission(total: int, available: int, reserve: int = 0) -> MemoryAdmission:
    figures = MemoryFigures(total * MIB, available * MIB)
    return MemoryAdmission(reserve_bytes=reserve * MIB, measure=lambda: figures)


def test_promises_add_up() -> None:
    memory = admission(1000, 1000, reserve=100)
    memory.admit("a", 500 * MIB)
    memory.admit("a", 600 * MIB)
    memory.admit("b", 300 * MIB)
    assert memory.promised_bytes == 900 * MIB
    with pytest.raises(MicaError) as caught:
        memory.admit("c", 1 * MIB)
    problem = caught.value.problem
    assert problem.code is ErrorCode.INSUFFICIENT_RESOURCES
    assert "needs 1 MiB" in problem.detail
    assert "0 MiB are free" in problem.detail
    memory.release("a")
    memory.admit("c", 600 * MIB)


def test_what_others_took_counts_too() -> None:
    memory = admission(1000, 50)
    with pytest.raises(MicaError):
        memory.admit("a", 100 * MIB)
    memory.note("a", 100 * MIB)
    assert memory.promised_bytes == 100 * MIB


def test_a_vm_that_grows_is_not_held_to_what_it_has() -> None:
    """It has touched all of its memory, so what is unused now is what it may grow by."""
    memory = admission(1000, 300)
    memory.note("a", 700 * MIB)
    memory.admit("a", 900 * MIB)
    with pytest.raises(MicaError):
        memory.admit("a", 1001 * MIB)
    assert memory.promised_bytes == 900 * MIB


@pytest.mark.parametrize("guest", [16 * MIB, 512 * MIB, 64 << 30])
def test_the_limit_leaves_room(guest: int) -> None:
    for accelerator in Accelerator:
        assert guest < expected_bytes(guest, accelerator) < limit_bytes(guest, accelerator)
    assert expected_bytes(guest, Accelerator.TCG) > expected_bytes(guest, Accelerator.KVM)


def test_meminfo(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n")
    assert host_memory(file) == MemoryFigures(2 * MIB, MIB)


def _unit(name: str) -> dict[str, str]:
    text = (REPOSITORY / "appliance_build/image/rootfs/usr/lib/systemd/system" / name).read_text()
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key: value for key, _, value in lines}


def test_guests_and_the_host_s_services_don_t_pay_for_each_other() -> None:
    """What the vmkernel may take is kept back from guests; the API is ended before any guest, a
    guest before the vmkernel."""
    vmkernel, api, vm = map(
        _unit, ("mica-vmkernel.service", "mica-api.service", "mica-vm@.service")
    )
    most = int(vmkernel["MemoryMax"].removesuffix("%"))
    assert most == VMKERNEL_PERCENT
    for total_bytes in (2 << 30, 16 << 30, 1 << 40):
        assert reserve_bytes(total_bytes) >= total_bytes * most // 100 + (192 << 20)
    assert int(vmkernel["MemoryHigh"].removesuffix("%")) < most
    assert vmkernel["OOMPolicy"] == "continue"
    # oom_badness() of mm/oom_kill.c: a thousandth of the memory a point, and the adjustment.
    guest_at_most = 1000 + int(vm["OOMScoreAdjust"])
    assert int(api["OOMScoreAdjust"]) >= guest_at_most
    assert int(vmkernel["OOMScoreAdjust"]) + 10 * most < int(vm["OOMScoreAdjust"])
