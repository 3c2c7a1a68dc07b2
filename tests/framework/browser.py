"""A real browser without a screen, controlled by its DevTools protocol."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import ClientConnection, connect

from appliance_build.tools.sandbox import ToolsSandbox
from tests.framework import inputs
from tests.framework.ending import started

__all__ = ["Page", "opened_page"]

START_S = 60.0
FLAGS = (
    "--no-sandbox",  # its own; it runs in ours, as root
    "--disable-gpu",
    "--disable-breakpad",
    "--disable-dev-shm-usage",
    "--user-data-dir=/tmp/profile",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
    "about:blank",
)


class Page:
    """One page that is open."""

    def __init__(self, tools: ClientConnection, address: str) -> None:
        self._tools = tools
        self._count = 0
        target = self._call("Target.createTarget", {"url": address})["targetId"]
        attach = {"targetId": target, "flatten": True}
        self._session = self._call("Target.attachToTarget", attach)["sessionId"]

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript; promises are awaited."""
        answer = self._call(
            "Runtime.evaluate",
            {"expression": script, "awaitPromise": True, "returnByValue": True},
            session=self._session,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str, *, timeout_s: float = 30.0) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + timeout_s
        while not (value := self.evaluate(script)):
            assert time.monotonic() < end, f"{script} did not become true"
            time.sleep(0.1)
        return value

    def _call(
        self, method: str, parameters: dict[str, Any], session: str | None = None
    ) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._tools.send(json.dumps(message))
        while True:
            answer = json.loads(self._tools.recv(timeout=START_S))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def opened_page(html: str, scripts: Path, *flags: str) -> Iterator[Page]:
    """A page of this text, beside the files of a folder, in a browser of its own (with `flags`)."""
    with _served(html, scripts) as address, _browser(*flags) as tools_address:
        with connect(tools_address, proxy=None, max_size=None) as tools:
            yield Page(tools, address)


@contextmanager
def _served(html: str, scripts: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(scripts))

        def do_GET(self) -> None:
            if self.path != "/":
                super().do_GET()
                return
            body = html.encode()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *_: Any) -> None:
            """Not needed."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@contextmanager
def _browser(*flags: str) -> Iterator[str]:
    """The address of a browser's DevTools."""
    sandbox = ToolsSandbox(inputs.tools(), system=inputs.browser())
    argv = sandbox.argv(["/usr/bin/chromium-headless-shell", *flags, *FLAGS])
    with tempfile.TemporaryFile() as log:
        # A session of its own: its helpers don't all end with it, and are ended with that.
        process = started(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield _tools_address(process, log)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _tools_address(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    end = time.monotonic() + START_S
    while True:
        log.seek(0)
        said = log.read().decode(errors="replace")
        if match := re.search(r"DevTools listening on (ws://\S+)", said):
            return match[1]
        assert process.poll() is None, f"the browser ended:\n{said}"
        assert time.monotonic() < end, f"the browser says no address:\n{said}"
        time.sleep(0.1)
