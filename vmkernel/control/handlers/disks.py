"""Disks of the host."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.handlers.paging import cut
from vmkernel.control.requests import ListDisks, Page, WipeDisk
from vmkernel.model import Disk, Operation
from vmkernel.storage.service import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def list_disks(request: ListDisks, _: Caller) -> Page[Disk]:
        disks = await storage.disks.list()
        items, more = cut(disks, lambda disk: disk.id, request.after, request.limit)
        return Page(items=items, more=more)

    @dispatcher.handler
    async def wipe_disk(request: WipeDisk, caller: Caller) -> Operation:
        return await storage.disks.wipe(request.disk, request.wipe_serial, actor=caller.actor)
