"""The states of a VM, and which requests are legal in each; pure.

                        start                     QEMU greeted, guest runs
      +------> stopped --------> starting ----------------------------> running <----+
      |        ^  ^  ^              |                                   |  |  ^      |
      |        |  |  +--------------+ start failed (with a reason)      |  |  | time-out reported
      |        |  |            pause, a disk that is full or failed,    |  |  |      |
      |        |  |            a panic, a processor that can't go on    |  |  |      |
      |        |  |                                   paused <----------+  |  +--- stopping
      |        |  |                                      | resume, space   |          ^
      |        |  |                                      | again --------->|          |
      |        |  |                                      |    shutdown     +----------+
      |        |  |   power-off, or the guest ended: QEMU left in order    |
      |        |  +----------- starting, running, paused, stopping --------+
      |        |                           |
      |  start |                           | QEMU is gone without saying why
      +------- | starting <--- crashed <---+
               |
               |  suspend (running, paused): the guest is paused, its memory goes to disk
               |     suspending -------------> suspended --- resume, start ---> starting
               |     |  failed, given up, or   |    ^                              |
               |     |  power-off asked        |    +------------------------------+
               |     +-> as before             |      the memory can't be loaded (with a reason)
               +-------------------------------+
                        discard-state
   unusable: vm.json can't be understood, or the VM's datastore holds something else; nothing is
   legal but delete, and a later look at the folder may find it `stopped`.
   migrating is reserved for moves between hosts: no VM is in it yet.

A vmkernel that restarts gives each VM the state that QEMU reports: no process -> suspended if its
memory is on disk, else stopped, or crashed if it was running and its orderly end was not seen; a
process -> running or paused. A complete memory image is always valid: it is sealed while the guest
is paused, and removed before the guest continues, so a QEMU beside it has not run.
"""

from __future__ import annotations

from enum import StrEnum

from vmkernel.model import ErrorCode, MicaError, VmAction, VmState

__all__ = [
    "ACTIVE",
    "AT_REST",
    "LEGAL",
    "OFF",
    "VmRequest",
    "WITH_QEMU",
    "check_legal",
    "has_reached",
    "is_legal",
    "request_of",
]


class VmRequest(StrEnum):
    """Everything that can be asked of one VM."""

    START = "start"
    SHUTDOWN = "shutdown"
    POWER_OFF = "power-off"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    SUSPEND = "suspend"
    DISCARD_STATE = "discard-state"
    UPDATE_SECURE_BOOT = "update-secure-boot"
    CONSOLE = "console"
    RENAME = "rename"
    """Change what the guest can't see: name, description, labels."""
    RECONFIGURE = "reconfigure"
    """Change anything else of the spec."""
    ADJUST = "adjust"
    """Store a change that the guest has seen already, such as a moved volume."""
    DELETE = "delete"
    QUERY = "query"
    """Ask QEMU something that changes nothing."""
    OPERATE = "operate"
    """Change something of a QEMU that is there and leave the VM's state as it is, such as a
    device that is added or a key that is pressed."""
    SNAPSHOT = "snapshot"
    """Take or delete a snapshot."""
    REVERT = "revert"
    """Go back to a snapshot, whatever the guest does."""
    HOLD = "hold"
    """Begin long work that changes the VM's disks; one at a time. Never while it is suspended,
    because its memory depends on their content."""


OFF = frozenset({VmState.STOPPED, VmState.CRASHED, VmState.SUSPENDED, VmState.UNUSABLE})
"""Certainly no QEMU."""

AT_REST = frozenset({VmState.STOPPED, VmState.CRASHED})
"""No QEMU, and no saved memory that depends on the disks' content."""

ACTIVE = frozenset(VmState) - OFF
"""A QEMU, or one that is being started or ended."""

_USABLE = frozenset(VmState) - {VmState.UNUSABLE}

WITH_QEMU = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPING})
"""A QEMU that answers."""

LEGAL: dict[VmRequest, frozenset[VmState]] = {
    VmRequest.START: frozenset({VmState.STOPPED, VmState.CRASHED, VmState.SUSPENDED}),
    VmRequest.SHUTDOWN: frozenset({VmState.RUNNING, VmState.STOPPING}),
    VmRequest.POWER_OFF: ACTIVE,
    VmRequest.RESET: frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPING}),
    VmRequest.PAUSE: frozenset({VmState.RUNNING}),
    VmRequest.RESUME: frozenset({VmState.PAUSED, VmState.SUSPENDED}),
    VmRequest.SUSPEND: frozenset({VmState.RUNNING, VmState.PAUSED}),
    VmRequest.DISCARD_STATE: frozenset({VmState.SUSPENDED}),
    VmRequest.UPDATE_SECURE_BOOT: AT_REST,
    VmRequest.CONSOLE: ACTIVE,
    VmRequest.RENAME: _USABLE,
    VmRequest.RECONFIGURE: AT_REST,
    VmRequest.ADJUST: _USABLE,
    VmRequest.DELETE: OFF,
    VmRequest.QUERY: WITH_QEMU,
    VmRequest.OPERATE: WITH_QEMU,
    VmRequest.SNAPSHOT: frozenset(
        {VmState.STOPPED, VmState.CRASHED, VmState.RUNNING, VmState.PAUSED}
    ),
    VmRequest.REVERT: _USABLE - {VmState.STARTING, VmState.SUSPENDING, VmState.MIGRATING},
    VmRequest.HOLD: _USABLE - {VmState.SUSPENDING, VmState.SUSPENDED},
}


_REACHED: dict[VmRequest, frozenset[VmState]] = {
    VmRequest.START: frozenset({VmState.STARTING, VmState.RUNNING}),
    VmRequest.SHUTDOWN: AT_REST,
    VmRequest.POWER_OFF: AT_REST,
    VmRequest.PAUSE: frozenset({VmState.PAUSED}),
    VmRequest.RESUME: frozenset({VmState.RUNNING}),
    VmRequest.SUSPEND: frozenset({VmState.SUSPENDING, VmState.SUSPENDED}),
    VmRequest.DISCARD_STATE: AT_REST,
}
"""The states in which a VM already is as an action would make it, or on its way there."""


_DONE: dict[VmRequest, str] = {
    VmRequest.START: "it can be started",
    VmRequest.SHUTDOWN: "it can be shut down",
    VmRequest.POWER_OFF: "it can be powered off",
    VmRequest.RESET: "it can be reset",
    VmRequest.PAUSE: "it can be paused",
    VmRequest.RESUME: "it can be resumed",
    VmRequest.SUSPEND: "it can be suspended",
    VmRequest.DISCARD_STATE: "its saved memory can be discarded",
    VmRequest.CONSOLE: "its console can be opened",
    VmRequest.RENAME: "it can be renamed",
    VmRequest.RECONFIGURE: "this can be changed",
    VmRequest.ADJUST: "this can be changed",
    VmRequest.DELETE: "it can be deleted",
    VmRequest.QUERY: "this can be asked of it",
    VmRequest.OPERATE: "this can be done",
    VmRequest.SNAPSHOT: "snapshots can be taken or deleted",
    VmRequest.REVERT: "it can be reverted",
    VmRequest.HOLD: "its disks can be worked on",
    VmRequest.UPDATE_SECURE_BOOT: "its Secure Boot certificates can be renewed",
}
"""What each request does, for messages."""


def request_of(action: VmAction) -> VmRequest:
    """The request behind an action."""
    return VmRequest(action.value)


def is_legal(request: VmRequest, state: VmState) -> bool:
    """True if the request is legal in that state."""
    return state in LEGAL[request]


def has_reached(request: VmRequest, state: VmState) -> bool:
    """True if the VM is as the request would make it, or on its way there."""
    return state in _REACHED.get(request, ())


def check_legal(vm_id: str, request: VmRequest, state: VmState) -> None:
    """Raise `conflict`, with what would be possible, if the request isn't legal.

    `already-in-state` if it would change nothing.
    """
    if is_legal(request, state):
        return
    if has_reached(request, state):
        raise MicaError(
            ErrorCode.ALREADY_IN_STATE,
            f"VM {vm_id} is {state.value} already: there is nothing to do.",
        )
    raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} is {state.value}: {_refusal(request, state)}.")


def _refusal(request: VmRequest, state: VmState) -> str:
    """What can't be done, when it can, and what brings the VM there."""
    legal = LEGAL[request]
    possible = _joined(sorted(each.value for each in legal))
    advice = ""
    if state in AT_REST and VmState.RUNNING in legal:
        advice = "; start it first"
    elif state is VmState.SUSPENDED:
        advice = "; resume it first" if VmState.RUNNING in legal else "; discard its state first"
    elif state in ACTIVE and VmState.STOPPED in legal and VmState.RUNNING not in legal:
        advice = "; stop it first"
    return f"{_DONE[request]} only while it is {possible}{advice}"


def _joined(words: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
