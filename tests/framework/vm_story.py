"""What a host says of a VM whose console was waited for in vain: its state, what happened to it,
and its screen, so that a failure can be understood from the log alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from remote_api.client.sdk import Mica
from tests.framework import inputs
from vmkernel.model import Event, Vm

__all__ = ["Host", "folder_of_screens", "vm_story"]

EVENTS = 20
"""The last ones of the VM: more than one start and end of it."""
_LOOKED_BACK = 500
"""Events of the whole host, among which the VM's are sought."""


class Host(Protocol):
    """What is asked of a host; `Mica` has it."""

    def vm(self, vm_id: str, /) -> Vm: ...
    def event_position(self) -> str: ...
    def events(self, after: str, /, *, reconnect: bool) -> Iterator[Event]: ...
    def screenshot(self, vm_id: str, /) -> bytes: ...


def vm_story(host: Host | Mica, vm_id: str, folder: Path) -> str:
    """Lines for a message; the screen is saved in `folder`. Never raises: what can't be had
    is said."""
    parts = {
        "state": lambda: _state(host.vm(vm_id)),
        "events": lambda: "".join(f"\n  {line}" for line in _events(host, vm_id)) or "none",
        "screen": lambda: _screen(host.screenshot(vm_id), folder / f"{vm_id}-screen.png"),
    }
    told = [f"{name}: {_tried(ask)}" for name, ask in parts.items()]
    return "\n".join([f"--- VM {vm_id} ---", *told, "---"])


def folder_of_screens() -> Path:
    """Where hosted tests save what screens showed; it stays after them."""
    return inputs.work_folder("screens")


def _tried(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:  # whatever it is, the failure that is reported matters more
        return f"can't be had: {error!r}"


def _state(vm: Vm) -> str:
    status = vm.status
    told = [status.state.value, status.reason, status.accelerator, status.started_at]
    return ", ".join(each for each in told if each)


def _events(host: Host | Mica, vm_id: str) -> list[str]:
    last = host.event_position()
    boot, _, number = last.rpartition("-")
    first = max(0, int(number, 16) - _LOOKED_BACK)
    found: list[str] = []
    if first < int(number, 16):
        for event in host.events(f"{boot}-{first:012x}", reconnect=False):
            if event.subject.id == vm_id:
                found.append(f"{event.time} {event.type} {event.message}".rstrip())
            if event.id >= last:
                break
    return found[-EVENTS:]


def _screen(png: bytes, path: Path) -> str:
    path.write_bytes(png)
    return f"saved as {path}"
