"""The system as a whole: its power, its jobs, its modules, its name and its clock's servers."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from vmkernel.host.drivers import load_driver
from vmkernel.host.errors import HostError, from_os_error
from vmkernel.host.runner import Runner

__all__ = ["System"]

_CGROUPS = Path("/sys/fs/cgroup/system.slice")
_TIMEOUT_S = 30.0


class System:
    """PID 1 and what belongs to the machine."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def power_off(self) -> None:
        """Begin the shutdown; it returns at once."""
        await self._systemctl(
            "start", "--no-block", "--job-mode=replace-irreversibly", "poweroff.target"
        )

    async def reboot(self) -> None:
        """Begin the restart; it returns at once."""
        await self._systemctl(
            "start", "--no-block", "--job-mode=replace-irreversibly", "reboot.target"
        )

    async def reload_network(self) -> None:
        """Have networkd read its files again, after its start where that is under way."""
        await self._systemctl("reload-or-restart", "--no-block", "systemd-networkd.service")

    async def load_all_drivers(self) -> None:
        """Have the devices that were there before udevd looked at; it returns at once."""
        await self._systemctl("start", "--no-block", "mica-coldplug.service")

    async def restart_time_sync(self) -> None:
        """Have timesyncd read its file again."""
        await self._systemctl("try-restart", "--no-block", "systemd-timesyncd.service")

    async def jobs(self) -> tuple[str, ...]:
        """The units that PID 1 is busy with, as `name verb`."""
        output = await self._systemctl("list-jobs", "--no-legend", "--plain")
        rows = (line.split() for line in output.splitlines())
        return tuple(f"{row[1]} {row[2]}" for row in rows if len(row) > 3 and row[3] == "running")

    async def failed_units(self) -> tuple[str, ...]:
        """The units that failed and stay so, without those of virtual machines."""
        output = await self._systemctl("list-units", "--state=failed", "--no-legend", "--plain")
        names = (line.split()[0] for line in output.splitlines() if line.strip())
        return tuple(sorted(name for name in names if not name.startswith("mica-vm@")))

    async def userspace_started_s(self) -> float | None:
        """When PID 1 began, in seconds since the kernel did."""
        output = await self._systemctl("show", "--property=UserspaceTimestampMonotonic")
        number = output.strip().rpartition("=")[2]
        return int(number) / 1e6 if number.isdigit() and int(number) else None

    async def modules_for(self, modalias: str) -> tuple[str, ...]:
        """The modules of this system that claim a device's alias."""
        completed = await self._runner.run(
            ["modprobe", "--quiet", "--resolve-alias", modalias], timeout_s=_TIMEOUT_S, ok=(0, 1)
        )
        return tuple(completed.stdout.decode(errors="replace").split())

    async def load_module(self, name: str) -> None:
        """Load a module and what it needs, also one that devices don't load by themselves."""
        await load_driver(self._runner, name)

    @staticmethod
    def main_pid(unit: str, cgroups: Path = _CGROUPS) -> int | None:
        """The oldest process of a service, subgroups included; None where it has none."""
        pids: list[int] = []
        for file in (cgroups / unit).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError, ValueError):
                pids += map(int, file.read_text().split())
        return min(pids, default=None)

    def set_hostname(self, name: str) -> None:
        """Name the running system."""
        try:
            socket.sethostname(name)
        except OSError as error:
            raise from_os_error(error, f"The host can't be named {name!r}") from error

    @staticmethod
    def write(path: Path, text: str) -> bool:
        """Replace a small configuration file in memory; True where that changed it."""
        try:
            if path.exists() and path.read_text() == text:
                return False
            if not path.parent.exists():  # others read it, whatever our umask is
                path.parent.mkdir(parents=True)
                path.parent.chmod(0o755)
            temp = path.with_name(f".{path.name}.new")
            temp.write_text(text)
            temp.chmod(0o644)
            temp.replace(path)
        except OSError as error:
            raise from_os_error(error, f"{path} can't be written") from error
        return True

    @staticmethod
    def remove(path: Path) -> bool:
        """Remove a configuration file; True where there was one."""
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise HostError(f"{path} can't be removed: {error.strerror}.") from error
        return True

    async def _systemctl(self, *words: str) -> str:
        completed = await self._runner.run(
            ["systemctl", "--no-ask-password", "--no-pager", *words], timeout_s=_TIMEOUT_S
        )
        return completed.stdout.decode(errors="replace")
