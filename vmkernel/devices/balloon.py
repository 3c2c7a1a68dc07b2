"""The balloon: reclaims memory from the guest on request, reports freed pages to the host, and the
guest's own statistics.
"""

from __future__ import annotations

from collections.abc import Iterator

from vmkernel.devices.arguments import Command
from vmkernel.devices.device import Board, Device, Setting
from vmkernel.devices.plan import Family, MachinePlan
from vmkernel.model import FieldError, HugePages, VmSpec

__all__ = ["BALLOON", "BALLOON_DEVICE", "STATS_INTERVAL_S"]

BALLOON = "balloon"
"""The device's id; its QOM path is `/machine/peripheral/balloon`."""
STATS_INTERVAL_S = 10
"""How often the guest is asked for its statistics."""
_PLACE = {Family.Q35: "0x8", Family.PC: "0x4.0x2"}
_TARGET = "/spec/memory/target_bytes"


def _add(board: Board, plan: MachinePlan) -> None:
    """The virtio balloon. A guest that runs out of memory gets it back before it kills anything.

    Memory that it returns by itself must be available again when the guest needs it: ordinary
    memory is; a huge page may not be, and its guest would be killed.
    """
    if not plan.spec.memory.balloon:
        return
    board.args.device(
        "virtio-balloon-pci",
        id=BALLOON,
        **board.slots.at(_PLACE),
        free_page_reporting=plan.spec.memory.huge_pages is HugePages.NONE,
        deflate_on_oom=True,
        guest_stats_polling_interval=STATS_INTERVAL_S,
    )


def _check(spec: VmSpec, _family: Family) -> Iterator[FieldError]:
    target = spec.memory.target_bytes
    if target is None:
        return
    if not spec.memory.balloon:
        yield FieldError(
            pointer=_TARGET, detail="A target needs a balloon: set `balloon: true`, or omit it."
        )
    elif target > spec.memory_bytes:
        yield FieldError(pointer=_TARGET, detail="It can't exceed `memory_bytes`.")


def _target(spec: VmSpec, _key: str | None = None) -> list[Command]:
    """What the guest shall keep of its memory."""
    return [("balloon", {"value": spec.memory.target_bytes or spec.memory_bytes})]


def _barred(_at_start: VmSpec, new: VmSpec) -> str | None:
    return None if new.memory.balloon else "The VM has no balloon."


def _before_run(spec: VmSpec, incoming: bool) -> list[Command]:
    """The guest's driver reads the target when it starts."""
    return [] if incoming or spec.memory.target_bytes is None else _target(spec)


BALLOON_DEVICE = Device(
    add=_add,
    place=_PLACE,
    check=_check,
    settings={"memory.target_bytes": Setting(_target, _barred, last=True)},
    before_run=_before_run,
)
