"""The boot stick: which disk it is, its partitions, what was written to it.

Under UEFI the loader reports the GUID of the partition that it was started from. A BIOS reports
nothing: then the stick is the disk with a state partition. Two sticks that were written with the
same image have the same GUIDs; one of them is used (USB before others, then by name) and a finding
says so, because only the user can know which one was meant.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vmkernel.host.block import STATE_TYPE_GUID, BlockDisk, BlockTree
from vmkernel.host.efi import booted_by_uefi, loader_variables
from vmkernel.host.gpt import GptPartition
from vmkernel.host.sysfs import DEV, SYS
from vmkernel.host.uevents import UeventSocket
from vmkernel.model import Finding, Severity, StickInfo

__all__ = ["ESP_TYPE_GUID", "Stick", "StickWatch", "find_sticks"]

ESP_TYPE_GUID = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"

_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Stick:
    """A disk that is (or looks like) the boot stick."""

    disk: BlockDisk
    partition_guids: tuple[str, ...]
    state: Path | None
    esp: Path | None

    def is_same(self, other: Stick) -> bool:
        """True if the other one is this stick, perhaps under another name."""
        return (self.partition_guids, self.disk.serial) == (
            other.partition_guids,
            other.disk.serial,
        )


def find_sticks(tree: BlockTree, sys: Path = SYS, dev: Path = DEV) -> tuple[Stick, ...]:
    """The disks that the host may have been started from, the likeliest first."""
    wanted = loader_variables(sys).partition_uuid if booted_by_uefi(sys) else None
    found = []
    for disk in tree.disks():
        if not disk.partitions:
            continue
        try:
            table = tree.gpt(disk)
        except OSError:
            continue
        if table is not None and _bears(table, wanted):
            found.append(_stick(disk, table, dev))
    return tuple(sorted(found, key=lambda stick: (stick.disk.transport != "usb", stick.disk.name)))


class StickWatch:
    """Knows the stick, reports its removal, and counts its I/O since boot."""

    def __init__(self, sys: Path = SYS, dev: Path = DEV) -> None:
        self._sys = sys
        self._dev = dev
        self._tree = BlockTree(sys=sys, dev=dev)
        self._stick: Stick | None = None
        self._alike = 0
        self._traffic = (0, 0)
        self._past = (0, 0)
        self._present = False

    @property
    def stick(self) -> Stick | None:
        """The stick, if it is present."""
        return self._stick if self._present else None

    def probe(self) -> Stick | None:
        """Look for the stick once. The one that was found first stays the stick."""
        sticks = find_sticks(self._tree, self._sys, self._dev)
        self._alike = len(sticks)
        known = self._stick
        if known is not None:
            sticks = tuple(stick for stick in sticks if stick.is_same(known))
        if not sticks:
            self.gone()
            return None
        if known is not None and not self._present:
            self._past, self._traffic = self._total(), (0, 0)
        self._stick = sticks[0]
        self._present = True
        return self._stick

    def gone(self) -> None:
        """The stick was pulled out."""
        self._present = False

    def disk_removed(self, name: str) -> bool:
        """A disk was removed; True if it was the stick."""
        if self._present and self._stick is not None and self._stick.disk.name == name:
            self.gone()
            return True
        return False

    async def wait(self, timeout_s: float, waiting: Callable[[], None]) -> Stick | None:
        """The stick, as soon as it is present; None if it didn't appear in time. `waiting` is
        called once if it isn't present at once.
        """
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with contextlib.closing(_BlockEvents(changed.set)) as events:
            loop.add_reader(events.fileno(), events.read)
            try:
                stick = await asyncio.to_thread(self.probe)
                if stick is None:
                    waiting()
                while stick is None and (left := deadline - loop.time()) > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(left, _LOOK_AGAIN_S)):
                            await changed.wait()
                    changed.clear()
                    stick = await asyncio.to_thread(self.probe)
                return stick
            finally:
                loop.remove_reader(events.fileno())

    def info(self) -> StickInfo:
        """The stick with its counters."""
        if self._stick is None:
            return StickInfo(present=False)
        disk = self._stick.disk
        if self._present and not (self._sys / "block" / disk.name).exists():
            self.gone()
        written, read = self._total()
        return StickInfo(
            present=self._present,
            device=str(disk.path) if self._present else None,
            model=disk.model,
            serial=disk.serial,
            size_bytes=disk.size_bytes,
            written_bytes=written,
            read_bytes=read,
        )

    def findings(self) -> tuple[Finding, ...]:
        if not self._present:
            seen = self._stick is not None
            message = (
                "The boot stick was removed; the host keeps running, but changes can't be saved."
                if seen
                else "The boot stick was not found after the start; changes can't be saved."
            )
            return (Finding(code="stick-missing", severity=Severity.ERROR, message=message),)
        if self._alike > 1 and self._stick is not None:
            name = self._stick.disk.name
            return (
                Finding(
                    code="two-sticks",
                    severity=Severity.WARNING,
                    message=f"{self._alike} disks look like the boot stick; {name} is used. "
                    "Remove the others.",
                    subject=name,
                ),
            )
        return ()

    def _total(self) -> tuple[int, int]:
        """Bytes written and read since boot, over all the times that the stick was there."""
        if self._present and self._stick is not None:
            now = self._tree.written_read_bytes(self._stick.disk.name)
            self._traffic = max(now, self._traffic)
        return self._past[0] + self._traffic[0], self._past[1] + self._traffic[1]


class _BlockEvents:
    """Calls back whenever a disk or partition is added."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._socket = UeventSocket()
        self._changed = changed

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> None:
        self._socket.read(
            lambda event: self._changed() if event is None or event.subsystem == "block" else None
        )

    def close(self) -> None:
        self._socket.close()


def _bears(table: tuple[GptPartition, ...], partition_guid: str | None) -> bool:
    if partition_guid is not None:
        return any(entry.unique_guid == partition_guid for entry in table)
    return any(entry.type_guid == STATE_TYPE_GUID for entry in table)


def _stick(disk: BlockDisk, table: tuple[GptPartition, ...], dev: Path) -> Stick:
    nodes = {partition.number: dev / partition.name for partition in disk.partitions}

    def first(kind: str) -> Path | None:
        return next((nodes.get(entry.number) for entry in table if entry.type_guid == kind), None)

    return Stick(
        disk=disk,
        partition_guids=tuple(entry.unique_guid for entry in table),
        state=first(STATE_TYPE_GUID),
        esp=first(ESP_TYPE_GUID),
    )
