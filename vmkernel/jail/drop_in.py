"""The part of a VM's jail that differs from VM to VM, as a systemd drop-in.

What the template `mica-vm@.service` leaves empty: the user, the limits, the files that the VM sees
(its own disks and variables; the firmware and images that it was given, read-only). Without KVM,
QEMU translates the guest's code and must be allowed to write what it executes. A TPM's emulator is
a second process in the same jail: the same user, cgroup and mounts; it adds its program and its
state file. Nothing of the guest's command line is in here.

The system calls listed here are those that the unit's processes need together; the launcher
installs each program's own, narrower list before it starts it (`roles/`).

Anything else is given to a VM as descriptors that the vmkernel opened, and no device file is ever
visible: /dev/kvm, taps, /dev/vhost-net, /dev/vhost-vsock, the TPM's socket. Huge pages need
nothing: they are anonymous (memfd), and the limit on memory doesn't count them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmkernel.jail.roles import LAUNCHER, QEMU
from vmkernel.jail.roles import SWTPM as SWTPM_CALLS

__all__ = ["SWTPM", "VmJail", "render_drop_in"]

_WEIGHT_OF_CPU = 100
_WEIGHT_MAX = 10_000
_TASKS_BASE = 256
"""QEMU's own threads: its main loop, an I/O thread, at most 64 workers for each of them."""
_TASKS_OF_TPM = 8
SWTPM = "/usr/bin/swtpm"
_LINE_MAX = 76


@dataclass(frozen=True)
class VmJail:
    """The jail of one VM."""

    vm_id: str
    uid: int
    root: Path
    """An empty folder, which becomes its root."""
    launch_socket: Path
    memory_max_bytes: int
    cpu_count: int
    kvm: bool
    read_only: tuple[Path, ...]
    read_write: tuple[Path, ...]
    """Files, and never a folder: root walks none that a jailed process can write."""
    tpm: bool = False
    """True if the TPM's emulator runs beside QEMU."""


def render_drop_in(jail: VmJail) -> str:
    """The drop-in's text."""
    lines = [
        f"# Written by vmkernel for one run of VM {jail.vm_id}.",
        "[Service]",
        *_settings(jail),
    ]
    return "\n".join(lines) + "\n"


def _settings(jail: VmJail) -> Iterator[str]:
    yield f"RootDirectory={_path(jail.root)}"
    yield f"OpenFile={_path(jail.launch_socket)}:launch"
    yield f"User={jail.uid}"
    yield f"Group={jail.uid}"
    yield f"MemoryMax={jail.memory_max_bytes}"
    yield f"CPUWeight={min(_WEIGHT_MAX, _WEIGHT_OF_CPU * jail.cpu_count)}"
    tasks = _TASKS_BASE + jail.cpu_count + (_TASKS_OF_TPM if jail.tpm else 0)
    yield f"TasksMax={tasks}"
    yield f"LimitNPROC={tasks}"
    yield from _system_calls(jail)
    if jail.kvm:
        yield "MemoryDenyWriteExecute=yes"
    if jail.tpm:
        yield f"BindReadOnlyPaths={SWTPM}"
        yield f"ExecPaths=+{SWTPM}"
    for path in jail.read_only:
        yield f"BindReadOnlyPaths={_path(path)}"
    for path in jail.read_write:
        yield f"BindPaths={_path(path)}"


def _system_calls(jail: VmJail) -> Iterator[str]:
    names = LAUNCHER.names() | QEMU.names() | (SWTPM_CALLS.names() if jail.tpm else frozenset())
    line: list[str] = []
    for name in sorted(names):
        if len(" ".join([*line, name])) > _LINE_MAX:
            yield "SystemCallFilter=" + " ".join(line)
            line = []
        line.append(name)
    yield "SystemCallFilter=" + " ".join(line)


def _path(path: Path) -> str:
    """A path as systemd's settings take it; it must name one thing and nothing else."""
    text = str(path)
    if not path.is_absolute() or any(ord(c) <= 0x20 or c in "%:\\\"'\x7f" for c in text):
        raise ValueError(f"the path {text!r} can't be written into a unit")
    return text
