"""The image as it was built, with one more unit put in by the test: an agent that obeys the test.

The product has no way in but its API and no hook for tests. What needs a hand inside (kill a
process, count memory, start QEMU bare) is done in a variant: the staged root tree as it was
built, plus agent.py and its unit, and the probe of jail_probe/, packed again and started by QEMU's
own -kernel and -initrd. Every other file is the same. The agent listens on the second serial port.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance_build.assemble.initrd import EARLY_MODULES, write_initrd
from appliance_build.closure import early_modules
from appliance_build.tools.sandbox import ToolsSandbox
from firmware.boot_chain.command_line import kernel_command_line
from tests.framework import inputs, jail_probe
from tests.framework.jail_probe import PROBE, PROBE_UNIT, build_probe

__all__ = ["Agent", "Variant", "variant"]

AGENT = Path(__file__).with_name("agent.py")
UNIT = """\
[Unit]
Description=Obeys the test
DefaultDependencies=no

[Service]
ExecStart=/usr/bin/python3 /usr/lib/mica-test/agent.py
"""
UNIT_NAME = "mica-test-agent.service"
ANSWER = "ANSWER "


@dataclass(frozen=True)
class Variant:
    """What QEMU starts it from."""

    kernel: Path
    initrd: Path
    command_line: str

    def arguments(self, agent_socket: Path) -> tuple[str, ...]:
        """QEMU's arguments, with the agent's serial port on a Unix socket."""
        return (
            *("-kernel", str(self.kernel), "-initrd", str(self.initrd)),
            *("-append", self.command_line),
            *("-chardev", f"socket,id=agent,path={agent_socket},server=on,wait=off"),
            *("-serial", "chardev:agent"),
        )


def variant() -> Variant:
    """The variant of the image as it is built now."""
    build = inputs.BUILD
    work = inputs.work_folder("variant")
    stage, root = work / "rootfs", work / "root.erofs"
    made = Variant(build / "vmlinuz", work / "initrd", kernel_command_line())
    sources = (build / "initrd", AGENT, Path(__file__), *Path(jail_probe.__file__).parent.iterdir())
    newest = max(path.stat().st_mtime for path in sources)
    if made.initrd.exists() and made.initrd.stat().st_mtime > newest:
        return made
    shutil.rmtree(stage, ignore_errors=True)
    subprocess.run(
        ["cp", "--archive", "--reflink=auto", str(build / "rootfs"), str(stage)],
        check=True,
        timeout=120,
    )
    _put(stage / "usr/lib/mica-test/agent.py", AGENT.read_text())
    units = stage / "usr/lib/systemd/system"
    _put(units / UNIT_NAME, UNIT)
    probe = stage / PROBE.lstrip("/")
    build_probe(probe)
    probe.chmod(0o755)
    _put(units / "mica-vm@probe.service.d/10-probe.conf", PROBE_UNIT)
    (units / "mica.target.wants").mkdir(exist_ok=True)
    (units / "mica.target.wants" / UNIT_NAME).symlink_to(f"../{UNIT_NAME}")
    root.unlink(missing_ok=True)
    ToolsSandbox(inputs.tools(), readable=[stage], writable=[work]).run(
        ["mkfs.erofs", "--quiet", "-zlz4", "--all-root", root, stage], timeout_s=300
    )
    write_initrd(
        made.initrd,
        init=build / "native/init",
        modules=early_modules((inputs.donor(),), list(EARLY_MODULES)),
        root_image=root,
    )
    shutil.rmtree(stage)
    root.unlink()
    return made


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


class Agent:
    """The agent inside the machine."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._buffer = b""

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: dict[str, Any], *, timeout_s: float = 60.0) -> Any:
        """One request and its answer."""
        deadline = time.monotonic() + timeout_s
        self._buffer = b""
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            self._socket.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise AssertionError(f"the agent did not answer {request}") from None
            if not data:
                raise AssertionError(f"the agent's line closed during {request}")
            self._buffer += data
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").strip()
                if text.startswith(ANSWER):
                    answer = json.loads(text.removeprefix(ANSWER))
                    if "error" in answer:
                        raise AssertionError(f"the agent: {answer['error']}")
                    return answer["value"]

    def run(self, *argv: str, timeout_s: float = 30.0) -> str:
        """Run a program inside; what it printed."""
        answer = self.ask({"do": "run", "argv": argv, "timeout_s": timeout_s}, timeout_s=timeout_s)
        if answer["code"] != 0:
            raise AssertionError(f"{' '.join(argv)}: {answer}")
        return str(answer["output"])

    def read(self, path: str) -> str:
        return str(self.ask({"do": "read", "path": path}))

    def links(self, path: str) -> dict[str, str]:
        """Where the symbolic links in a folder lead, by name."""
        found: dict[str, str] = self.ask({"do": "links", "path": path})
        return found

    def names(self, path: str) -> list[str]:
        """What is in a folder."""
        found: list[str] = self.ask({"do": "list", "path": path})
        return found

    def open_as(self, uid: int, root: str, path: str) -> str:
        """What opening a file says to that user with that root: nothing, or why not."""
        return str(self.ask({"do": "open_as", "uid": uid, "root": root, "path": path}))

    def kill(self, unit: str) -> None:
        """Kill a unit's processes as a crash would: SIGKILL, unannounced."""
        self.run("/usr/bin/systemctl", "kill", "--signal=KILL", unit)

    def main_pid(self, unit: str) -> int:
        """The main process of a unit; 0 if it has none."""
        shown = self.run("/usr/bin/systemctl", "show", "--property=MainPID", "--value", unit)
        return int(shown.strip() or 0)
