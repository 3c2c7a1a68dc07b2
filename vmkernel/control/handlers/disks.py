"""Disks of the host."""

from __future__ import annotations

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import answer_from
from vmkernel.control.requests import ListDisks, Page, WipeDisk
from vmkernel.model import Operation
from vmkernel.storage.service import StorageService

__all__ = ["register"]


def register(dispatcher: Dispatcher, storage: StorageService) -> None:
    @dispatcher.handler
    async def list_disks(request: ListDisks, _: Caller) -> Page:
        return await answer_from(request, await storage.disks.list())

    @dispatcher.handler
    async def wipe_disk(request: WipeDisk, caller: Caller) -> Operation:
        return await storage.disks.wipe(request.disk, request.wipe_serial, actor=caller.actor)
