"""What tests of changes to a running VM share: its start, and the changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from tests.unit.vm.world import World
from vmkernel.model import DiskSpec, VmAction

__all__ = ["plugging_story", "update"]

Devices = TypeVar("Devices")


def plugging_story(
    root: Path,
    devices_of: Callable[[World], Devices],
    tell: Callable[[World, Devices], Awaitable[None]],
    prepare: Callable[[World], None] = lambda _: None,
    **fields: Any,
) -> None:
    """Tell it of a VM that runs with the disk `a`; a volume `b` is there, too. `devices_of` models
    what QEMU has, `prepare` adds to the storage."""

    async def whole() -> None:
        world = World(root)
        for volume in ("a", "b"):
            world.storage.add_volume(volume)
        prepare(world)
        await world.vms.start()
        try:
            await world.create(disks=(DiskSpec(volume="a"),), **fields)
            await world.act(VmAction.START)
            await tell(world, devices_of(world))
        finally:
            await world.operations.close()
            await world.vms.stop()

    asyncio.run(whole())


async def update(world: World, **changes: Any) -> None:
    """Change fields of the VM's spec."""
    vm = world.vms.inventory.get("web")
    await world.vms.changes.update("web", replace(vm.spec, **changes), vm.revision, actor="me")
