"""A kind of virtual device: all that the rest of Mica needs to know about it, in one object.

Each module of a device makes one (or some that belong together), and `registry.py` lists it. The
command line, the check of specs, the start and the hot-plug planner iterate over the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vmkernel.devices.arguments import Arguments, Command
from vmkernel.devices.plan import BootTopology, Family, MachinePlan
from vmkernel.devices.slots import Place, Slots
from vmkernel.model import FieldError, VmSpec

__all__ = ["Board", "Device", "Setting", "duplicate_problems"]


@dataclass(frozen=True)
class Board:
    """The machine under construction, as device modules see it."""

    args: Arguments
    slots: Slots
    family: Family
    topology: BootTopology | None = None
    """What the machine was first started with; None for a device that is plugged in."""
    order: Mapping[str, int] = field(default_factory=dict)
    """The place in the boot order of the devices that have one, by their keys."""


def _always(_at_start: VmSpec, _new: VmSpec) -> str | None:
    return None


@dataclass(frozen=True)
class Setting:
    """A live field of the spec, which a running machine follows by QMP commands alone."""

    commands: Callable[[VmSpec, str | None], list[Command]]
    """Commands that change a running machine to a spec; the key names one of several devices. They
    are built for the spec before and after: nothing is done if both are the same."""
    barred: Callable[[VmSpec, VmSpec], str | None] = _always
    """Why it can't be, from the spec that the machine was started with and the new one."""
    last: bool = False
    """True if it depends on what else is changed with it."""


def _no_problems(_spec: VmSpec, _family: Family) -> Iterable[FieldError]:
    return ()


def _no_commands(_spec: VmSpec, _incoming: bool) -> list[Command]:
    return []


@dataclass(frozen=True, kw_only=True)
class Device:
    """A kind of device."""

    add: Callable[[Board, MachinePlan], None]
    """Puts it, or all of its kind, on the command line, if the plan has it."""
    place: Mapping[Family, Place] = field(default_factory=dict)
    """Its place on the PCI bus, if it exists at most once."""
    check: Callable[[VmSpec, Family], Iterable[FieldError]] = _no_problems
    """The conditions on a spec beyond its types."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """By the path of the field (`SCOPES` in vmkernel/model/vm.py). Live fields that need more than
    commands, such as a file or a tap, are followed by vmkernel/vm/hotplug."""
    before_run: Callable[[VmSpec, bool], list[Command]] = _no_commands
    """Commands after QEMU's start and before the guest runs; the flag is true if a memory image was
    loaded, which has the guest's state."""


def duplicate_problems(message: str, named: Iterable[tuple[str, object]]) -> Iterator[FieldError]:
    """A problem for each repeated value; `named` are pointers with values."""
    seen: set[object] = set()
    for pointer, value in named:
        if value in seen:
            yield FieldError(pointer=pointer, detail=message.format(value))
        seen.add(value)
