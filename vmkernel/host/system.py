"""The system as a whole: power, jobs, modules, host name and time servers."""

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
    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def power_off(self) -> None:
        """Begin the shutdown; returns at once."""
        await self._systemctl(
            "start", "--no-block", "--job-mode=replace-irreversibly", "poweroff.target"
        )

    async def reboot(self) -> None:
        """Begin the restart; returns at once."""
        await self._systemctl(
            "start", "--no-block", "--job-mode=replace-irreversibly", "reboot.target"
        )

    async def reload_network(self) -> None:
        """Have networkd read its files again, or after its start if that is in progress."""
        await self._systemctl("reload-or-restart", "--no-block", "systemd-networkd.service")

    async def load_all_drivers(self) -> None:
        """Have udevd process the devices that existed before it; returns at once."""
        await self._systemctl("start", "--no-block", "mica-coldplug.service")

    async def restart_time_sync(self) -> None:
        """Have timesyncd read its file again."""
        await self._systemctl("try-restart", "--no-block", "systemd-timesyncd.service")

    async def jobs(self) -> tuple[str, ...]:
        """The jobs of PID 1, as `unit verb`."""
        output = await self._systemctl("list-jobs", "--no-legend", "--plain")
        rows = (line.split() for line in output.splitlines())
        return tuple(f"{row[1]} {row[2]}" for row in rows if len(row) > 3 and row[3] == "running")

    async def failed_units(self) -> tuple[str, ...]:
        """The failed units, without those of VMs."""
        output = await self._systemctl("list-units", "--state=failed", "--no-legend", "--plain")
        names = (line.split()[0] for line in output.splitlines() if line.strip())
        return tuple(sorted(name for name in names if not name.startswith("mica-vm@")))

    async def userspace_started_s(self) -> float | None:
        """When PID 1 started, in seconds since the kernel did."""
        output = await self._systemctl("show", "--property=UserspaceTimestampMonotonic")
        number = output.strip().rpartition("=")[2]
        return int(number) / 1e6 if number.isdigit() and int(number) else None

    async def modules_for(self, modalias: str) -> tuple[str, ...]:
        """The modules of this system that match a device's alias."""
        completed = await self._runner.run(
            ["modprobe", "--quiet", "--resolve-alias", modalias], timeout_s=_TIMEOUT_S, ok=(0, 1)
        )
        return tuple(completed.stdout.decode(errors="replace").split())

    async def load_module(self, name: str) -> None:
        """Load a module and its dependencies, also one that devices don't load by themselves."""
        await load_driver(self._runner, name)

    @staticmethod
    def main_pid(unit: str, cgroups: Path = _CGROUPS) -> int | None:
        """The oldest process of a service, including subgroups; None if it has none."""
        pids: list[int] = []
        for file in (cgroups / unit).glob("**/cgroup.procs"):
            with contextlib.suppress(OSError, ValueError):
                pids += map(int, file.read_text().split())
        return min(pids, default=None)

    def set_hostname(self, name: str) -> None:
        try:
            socket.sethostname(name)
        except OSError as error:
            raise from_os_error(error, f"The host can't be named {name!r}") from error

    @staticmethod
    def write(path: Path, text: str) -> bool:
        """Replace a small configuration file in memory; True if that changed it."""
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
        """Remove a configuration file; True if it existed."""
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
