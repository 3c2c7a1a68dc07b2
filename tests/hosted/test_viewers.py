"""`mica vnc` with Debian's VNC viewers, as their users start them: with default options.

TigerVNC, gvncviewer and remote-viewer all ask for a session of their own; nobody is dropped for
that.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_api.client.consoles.websocket import open_console
from remote_api.client.sdk import Mica
from tests.framework.ending import started
from tests.framework.hosted import HostedMica
from tests.framework.png import png_rows
from tests.framework.repository import REPOSITORY
from tests.framework.seen_guest import KEYS, read_until, seen_guest
from tests.framework.viewers import XScreen, x_screen
from vmkernel.model import ConsoleMode

SHOWN_S = 90.0
VIEWERS = ("vncviewer", "gvncviewer", "remote-viewer")
"""As `--viewer` names them; vncviewer is TigerVNC's."""


@pytest.fixture(scope="module")
def shown(host: HostedMica) -> Iterator[str]:
    """A running guest with a screen."""
    with seen_guest(host, "shown") as name:
        yield name


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[XScreen]:
    """An X display."""
    with x_screen(tmp_path) as screen:
        yield screen


@pytest.mark.parametrize("viewer", VIEWERS)
def test_a_viewer_shows_the_screen_and_types(
    host: HostedMica, mica: Mica, shown: str, screen: XScreen, viewer: str
) -> None:
    with (
        _mica_vnc(host, shown, screen, viewer),
        open_console(mica, shown, mode=ConsoleMode.WATCH) as line,
    ):
        _wait_for_picture(mica, shown, screen)
        read_until(line, r"tick \d+")
        screen.type("h")
        read_until(line, rf"key {KEYS['h']}\r?\n")


def test_a_second_viewer_leaves_the_first_connected(
    host: HostedMica, mica: Mica, shown: str, tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with x_screen(folders[0]) as first:
        with _mica_vnc(host, shown, first, "vncviewer") as one:
            _wait_for_picture(mica, shown, first)
            with (
                x_screen(folders[1], beside=1) as second,
                _mica_vnc(host, shown, second, "gvncviewer"),
            ):
                _wait_for_picture(mica, shown, second)
                mica.send_keys(shown, text="seen by both")
                _wait_for_picture(mica, shown, first)
                _wait_for_picture(mica, shown, second)
                assert one.poll() is None


@contextmanager
def _mica_vnc(
    host: HostedMica, vm_id: str, screen: XScreen, viewer: str
) -> Iterator[subprocess.Popen[bytes]]:
    # The viewer's name says how it takes the address, so it is started by that name.
    script = screen.folder / viewer
    script.write_text(f'#!/bin/sh\nexec {shlex.join(screen.command(viewer))} "$@"\n')
    script.chmod(0o755)
    argv = [sys.executable, "-m", "remote_api.client", "vnc", vm_id, "--viewer", str(script)]
    environment = {
        **os.environ,
        "MICA_HOST": host.address,
        "MICA_TOKEN": str(host.token),
        "MICA_FINGERPRINT": host.fingerprint,
    }
    with started(argv, cwd=REPOSITORY, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait_for_picture(mica: Mica, vm_id: str, screen: XScreen) -> None:
    """Return once the X screen shows the guest's screen, row by row."""
    end = time.monotonic() + SHOWN_S
    while True:
        # Rows of one colour prove nothing; the cursor's may blink.
        rows = {row for row in png_rows(mica.screenshot(vm_id)) if len(set(row)) > 1}
        there = screen.rows()
        found = sum(any(row in line for line in there) for row in rows)
        if rows and found >= 0.9 * len(rows):
            return
        assert time.monotonic() < end, f"{found} of {len(rows)} rows of the guest are on the screen"
        time.sleep(0.5)
