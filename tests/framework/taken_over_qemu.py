"""A QEMU whose guest has broken out: it speaks QMP on the socket that it was born with, and lies.

As fast as it is read, it sends invented events, unexpected answers, huge lines and
numbers that fit nowhere, and writes to its log. Run as a program in QEMU's place: it takes QEMU's
arguments and ends by `quit`, with its last connection, or after a few minutes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["NAME", "wrapper"]

NAME = "taken"
"""The VM whose QEMU it is."""
_LIFE_S = 240.0
_HUGE = 10**30
_GREETING = b'{"QMP": {"version": {"qemu": {"major": 11}}, "capabilities": []}}\r\n'


def wrapper(script: Path, qemu: Path) -> Path:
    """Write a script that is QEMU for all VMs but that one."""
    liar = shlex.join([sys.executable, str(Path(__file__).resolve())])
    script.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" guest={NAME},"*) exec nice -n 10 {liar} "$@";; esac\n'
        f'exec nice -n 10 {qemu} "$@"\n'
    )
    script.chmod(0o755)
    return script


def _flows() -> dict[str, int]:
    names = ("operations", "bytes", "total_time_ns")
    return {f"{flow}_{name}": _HUGE for flow in ("rd", "wr", "flush", "unmap") for name in names}


ANSWERS: dict[str, Any] = {
    "qmp_capabilities": {},
    "cont": {},
    "stop": {},
    "query-status": {"status": "running"},
    "query-blockstats": [{"qdev": "/machine/peripheral/disk0", "stats": _flows()}],
    "query-balloon": {"actual": _HUGE},
    "qom-get": {"last-update": _HUGE, "stats": {"stat-free-memory": _HUGE}},
    "query-migrate": {"status": "active", "ram": {"total": _HUGE, "remaining": 1}},
}


def _lies() -> bytes:
    """Some of each kind, each a little different from the others."""
    stamp = '{"timestamp": {"seconds": 1, "microseconds": %d}, '
    lines = []
    for number in range(200):
        head = stamp % number
        lines += [
            head + '"event": "GUEST_PANICKED", "data": {"action": "run"}}',
            head + f'"event": "BLOCK_IO_ERROR", "data": {{"device": "{number}", "reason": "x"}}}}',
            head + '"event": "RESET", "data": {"guest": true, "reason": "\\u001b[2J"}}',
            head + f'"event": "INVENTED_{number}", "data": {{"n": {_HUGE}}}}}',
            f'{{"return": {{"n": {_HUGE}}}, "id": {number + 10**9}}}',
            f'{{"return": {list(range(50))}}}',
        ]
    return "\r\n".join(lines).encode() + b"\r\n"


class _Session(threading.Thread):
    """One connection: an answer to each command, lies in between."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.lock = threading.Lock()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            self.say(_GREETING)
            threading.Thread(target=self.answer, daemon=True).start()
            lies = _lies()
            large = b'{"return": [%s]}\r\n' % b",".join([b"[]"] * 500_000)
            for number in itertools.count():
                self.say(large if number % 50 == 49 else lies)

    def say(self, data: bytes) -> None:
        with self.lock:
            self.sock.sendall(data)

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            for line in self.sock.makefile("rb"):
                command = json.loads(line)
                answer = ANSWERS.get(command["execute"], [_HUGE])
                self.say(json.dumps({"return": answer, "id": command["id"]}).encode() + b"\r\n")
                if command["execute"] == "quit":
                    os._exit(0)


def _fill_the_log() -> None:
    while True:
        with contextlib.suppress(BlockingIOError):
            os.write(2, b"\x1b]0;a line of the taken over QEMU\x07\n" * 100)
        time.sleep(0.001)


def _main(argv: list[str]) -> None:
    (number,) = re.findall(r"socket,id=qmp,fd=(\d+),", " ".join(argv))
    listener = socket.socket(fileno=int(number))
    listener.settimeout(_LIFE_S)
    threading.Thread(target=_fill_the_log, daemon=True).start()
    threading.Timer(_LIFE_S, os._exit, (0,)).start()
    while True:
        sock, _ = listener.accept()
        sock.settimeout(None)
        _Session(sock).start()


if __name__ == "__main__":
    _main(sys.argv)
