"""The system calls of each role, one file a role; it is data and starts nothing."""

from vmkernel.jail.roles.launcher import LAUNCHER
from vmkernel.jail.roles.qemu import QEMU
from vmkernel.jail.roles.swtpm import SWTPM
from vmkernel.jail.roles.worker import FETCH_WORKER, TOOL, WORKER

__all__ = ["FETCH_WORKER", "LAUNCHER", "QEMU", "SWTPM", "TOOL", "WORKER"]
