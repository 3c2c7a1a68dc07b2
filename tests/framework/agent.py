"""Runs inside the variant of the image (variant.py): obeys requests on the second serial port.

One JSON object a line; each is answered by a line `ANSWER {"value": …}` or
`ANSWER {"error": "…"}`.

    {"do": "run", "argv": […], "timeout_s": S}                -> {"code": C, "output": "…"}
    {"do": "seconds_until", "argv": […], "text": T, "timeout_s": S}
                                     -> seconds from the start until its output holds the text
    {"do": "memory"}                 -> MiB by process (proportional share), and of the kernel
    {"do": "list", "path": P}        -> the names in a folder
    {"do": "read", "path": P}        -> a file's text
    {"do": "links", "path": P}       -> where the symbolic links in a folder lead, by name
    {"do": "open_as", "uid": U, "root": R, "path": P}
                                     -> what open(2) says to that user with that root: "" or why not
"""

from __future__ import annotations

import os
import select
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["main"]

PORT = "/dev/ttyS1"


def _run(request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        request["argv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=request.get("timeout_s", 30),
        check=False,
    )
    return {"code": done.returncode, "output": done.stdout.decode(errors="replace")}


def _seconds_until(request: dict[str, Any]) -> float:
    wanted = request["text"].encode()
    began = time.monotonic()
    process = subprocess.Popen(
        request["argv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    seen = b""
    try:
        while wanted not in seen:
            left = began + request["timeout_s"] - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError(seen[-500:].decode(errors="replace"))
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError(seen[-500:].decode(errors="replace"))
            seen += data
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def _share(process: Path) -> tuple[str, float] | None:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
        name = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return None
    for line in lines:
        if line.startswith("Pss:"):
            return name, int(line.split()[1]) / 1024
    return None


def _memory(_: dict[str, Any]) -> dict[str, Any]:
    processes = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (found := _share(process)) is not None:
            processes[f"{process.name} {found[0][:80]}"] = round(found[1], 1)
    lines = Path("/proc/meminfo").read_text().splitlines()
    kernel = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {"processes": processes, "meminfo": kernel}


def _list(request: dict[str, Any]) -> list[str]:
    return sorted(path.name for path in Path(request["path"]).iterdir())


def _read(request: dict[str, Any]) -> str:
    return Path(request["path"]).read_bytes().decode(errors="replace")


def _links(request: dict[str, Any]) -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in Path(request["path"]).iterdir()}


def _open_as(request: dict[str, Any]) -> str:
    end, other = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            os.chroot(request["root"])
            os.chdir("/")
            os.setgroups([])
            os.setgid(request["uid"])
            os.setuid(request["uid"])
            os.close(os.open(request["path"], os.O_RDONLY))
        except OSError as error:
            said = error.strerror or "it failed"
        finally:
            os.write(other, said.encode())
            os._exit(0)
    os.close(other)
    os.waitpid(child, 0)
    said = os.read(end, 4096).decode()
    os.close(end)
    return said


ACTIONS = {
    "run": _run,
    "seconds_until": _seconds_until,
    "memory": _memory,
    "list": _list,
    "read": _read,
    "links": _links,
    "open_as": _open_as,
}


def _make_raw(line: int) -> None:
    """As tty.setraw does; the image's library has no tty."""
    settings = termios.tcgetattr(line)
    settings[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    termios.tcsetattr(line, termios.TCSANOW, settings)


def main() -> None:
    """Obey for ever."""
    line = os.open(PORT, os.O_RDWR | os.O_NOCTTY)
    _make_raw(line)
    buffer = b""
    while True:
        buffer += os.read(line, 4096)
        *requests, buffer = buffer.split(b"\n")
        for text in requests:
            try:
                request = msgspec.json.decode(text)
                answer = {"value": ACTIONS[request["do"]](request)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            data = b"ANSWER " + msgspec.json.encode(answer) + b"\n"
            while data:
                data = data[os.write(line, data) :]


if __name__ == "__main__":
    main()
