"""Guests' ports on a virtual switch of this machine's kernel, in namespaces of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from tests.framework import inputs
from tests.framework.ending import started
from tests.framework.guest_frames import SCENE

__all__ = ["GuestPorts"]


class GuestPorts:
    """A switch with the host, two guests and an uplink; see guest_port_worker.py."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.other = "52:54:00:6d:69:02"

    def __enter__(self) -> Self:
        rights = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        self._process = started(
            [
                *("unshare", *rights, "--net", "--mount", "--propagation", "private"),
                *(sys.executable, "-m", "tests.framework.guest_port_worker"),
                *(SCENE.host, SCENE.guest, self.other),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=inputs.REPOSITORY,
        )
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def send(self, frames: dict[str, bytes], origin: str = "guest") -> dict[str, list[str]]:
        """Where each frame arrives: at the host, at the other guest, beyond the uplink."""
        request = {"do": "send", "from": origin, "frames": [f.hex() for f in frames.values()]}
        return dict(zip(frames, self.ask(**request)["arrived"], strict=True))

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the switch could not be made; its reason is above")
        answer: dict[str, Any] = json.loads(line)
        return answer
