"""Waiting for KVM's module: only where the processor is one that it will come for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from vmkernel.host.kvm import wait_for_kvm


def test_a_processor_without_the_extension_is_not_waited_for(tmp_path: Path) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor\t: 0\nflags\t\t: fpu sse\nbugs\t: svm\n")
    started = time.monotonic()
    asyncio.run(wait_for_kvm(30, device=tmp_path / "kvm", processor=cpu))
    asyncio.run(wait_for_kvm(30, device=tmp_path / "kvm", processor=tmp_path / "none"))
    assert time.monotonic() - started < 5


def test_the_device_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor\t: 0\nflags\t\t: fpu svm\n")
    device = tmp_path / "kvm"

    async def scenario() -> bool:
        waiting = asyncio.create_task(wait_for_kvm(30, device=device, processor=cpu))
        await asyncio.sleep(0.15)
        before = waiting.done()
        device.touch()
        await asyncio.wait_for(waiting, 5)
        return before

    assert not asyncio.run(scenario())
    device.unlink()
    asyncio.run(wait_for_kvm(0.2, device=device, processor=cpu))
