"""What people see and touch of a guest: serial line, screen, keyboard, NMI; one guest for all."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import ClientConnection, connect

from remote_api.client.consoles.websocket import open_console
from remote_api.client.errors import RefusedError
from remote_api.client.http.pinning import PinnedContext
from remote_api.client.sdk import Mica
from remote_api.schema import ConsoleFraming
from tests.framework import inputs
from tests.framework.browser import opened_page
from tests.framework.console import SocketWire
from tests.framework.ending import started
from tests.framework.hosted import HostedMica
from tests.framework.npm import NpmPackage, unpacked_package
from tests.framework.png import png_rows
from tests.framework.repository import REPOSITORY
from tests.framework.rfb import Viewer
from tests.framework.seen_guest import KEYS, read_until, seen_guest
from tests.framework.talk import Talk
from vmkernel.model import ConsoleKind, ConsoleMode

MIB = 1 << 20


@pytest.fixture(scope="module")
def seen(host: HostedMica) -> Iterator[str]:
    """A running guest with a screen."""
    with seen_guest(host, "seen") as name:
        yield name


def _notice(line: ClientConnection) -> tuple[bool, str | None]:
    """The next notice: whether one writes here, or who does; the line's bytes are left out."""
    while True:
        data = line.recv(timeout=20)
        if isinstance(data, str):
            notice = json.loads(data)
            return notice["writer"], notice["holder"]


def test_a_wait_in_vain_says_how_the_vm_is(mica: Mica, seen: str) -> None:
    with Talk(mica, seen) as talk:
        with pytest.raises(AssertionError) as caught:
            talk.until("what no guest says", timeout_s=1)
    told = str(caught.value)
    assert "not seen within 1 s" in told
    assert "state: running, tcg" in told
    assert re.search(r"^  \S+Z vm\.", told, re.MULTILINE), told
    picture = re.search(r"screen: saved as (.*)", told)
    assert picture is not None
    assert Path(picture[1]).read_bytes().startswith(b"\x89PNG")


def test_one_writes_others_watch_and_may_take_over(mica: Mica, seen: str) -> None:
    with open_console(mica, seen) as first, open_console(mica, seen) as second:
        assert _notice(first) == (True, None)
        writer, holder = _notice(second)
        assert (writer, (holder or "").split()[0]) == (False, "admin")
        second.send(b"echo by the second\n")
        first.send(b"echo by the first\n")
        text = read_until(second, r"echo by the first\r?\n")
        assert "by the second" not in text
        second.send('{"mode": "takeover"}')
        while _notice(first)[0]:
            pass
        while not _notice(second)[0]:
            pass
        first.send(b"echo too late\n")
        second.send(b"echo taken over\n")
        assert "too late" not in read_until(first, r"echo taken over\r?\n")
    with open_console(mica, seen, mode=ConsoleMode.WATCH) as watcher:
        assert "MICA GUEST READY" in read_until(watcher, r"tick \d+"), "no scrollback"


def test_keys_reach_the_guest_and_the_screen_shows_them(mica: Mica, seen: str) -> None:
    before = png_rows(mica.screenshot(seen))
    with open_console(mica, seen, mode=ConsoleMode.WATCH) as line:
        read_until(line, r"tick \d+")
        mica.send_keys(seen, "f2", text="helLo")
        codes = [KEYS[name] for name in ("f2", "h", "e", "l", "shift", "l", "o")]
        text = read_until(line, rf"key {KEYS['o']}\r?\n")
        assert [int(code) for code in re.findall(r"key (\d+)", text)][-7:] == codes
    after = png_rows(mica.screenshot(seen))
    assert (len(after), len(after[0])) == (len(before), len(before[0]))
    assert len(after) >= 400
    assert len(after[0]) >= 640 * 3
    assert after != before
    with pytest.raises(RefusedError) as refused:
        mica.send_keys(seen, "ctrl-alt-anykey", text="\u00e4")
    assert [e.pointer for e in refused.value.problem.errors] == ["/keys/0", "/text"]


def test_nmi(mica: Mica, seen: str) -> None:
    with open_console(mica, seen, mode=ConsoleMode.WATCH) as line:
        read_until(line, r"tick \d+")
        mica.inject_nmi(seen)
        read_until(line, r"NMI received")


def test_a_local_port_for_viewers(host: HostedMica, seen: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "remote_api.client", "vnc", seen]
    environment = {
        **os.environ,
        "MICA_HOST": host.address,
        "MICA_TOKEN": str(host.token),
        "MICA_FINGERPRINT": host.fingerprint,
    }
    with started(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as door:
        try:
            assert door.stdout is not None
            match = re.fullmatch(r"vnc://127\.0\.0\.1:(\d+)\n", door.stdout.readline())
            assert match is not None
            for _ in range(2):  # each viewer spends a ticket of its own
                viewer = Viewer(
                    SocketWire(socket.create_connection(("127.0.0.1", int(match[1])), timeout=20))
                )
                assert viewer.look().lit() > 0
                viewer.close()
        finally:
            door.terminate()
    script = tmp_path / "viewer.py"
    script.write_text(
        "import socket, sys\n"
        "host, _, port = sys.argv[1].partition('::')\n"
        "print(socket.create_connection((host, int(port))).recv(12).decode())\n"
    )
    done = subprocess.run(
        [*command, "--viewer", f"{sys.executable} {script}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "RFB 003.008" in done.stdout, done.stderr


def test_vnc_is_for_guests_with_a_screen(mica: Mica, seen: str) -> None:
    with open_console(mica, seen, ConsoleKind.VNC) as screen:
        assert screen.recv(timeout=10) == b"RFB 003.008\n"


def test_figures_of_a_guest_and_its_host(mica: Mica, seen: str) -> None:
    before = mica.vm_statistics(seen)
    with open_console(mica, seen) as line:
        line.send(b"sum vda 0 4194304\n")
        read_until(line, r"sum vda 0 4194304: \w+")
    after = mica.vm_statistics(seen)
    assert after.complete
    assert after.cpu_seconds >= before.cpu_seconds > 0
    assert [vcpu.index for vcpu in after.vcpus] == [0]
    assert after.vcpus[0].seconds > 0
    assert 32 * MIB < after.memory.resident_bytes < 2048 * MIB
    (disk,) = after.disks
    assert disk.key == "disk0"
    assert disk.read.bytes >= before.disks[0].read.bytes + (4 << 20)
    assert disk.read.seconds > 0
    assert 0 < sum(disk.read.latency_counts) <= disk.read.operations
    assert after.memory.balloon_bytes == 256 * MIB
    assert after.memory.guest is not None
    assert 128 * MIB < (after.memory.guest.total_bytes or 0) < 256 * MIB
    host = mica.host_statistics()
    assert host.memory_promised_bytes >= 256 * MIB
    assert [space.id for space in host.datastores] == ["main"]
    families = {f.name: f for f in text_string_to_metric_families(mica.metrics())}
    states = {s.labels["vm"]: s.labels["state"] for s in families["mica_vm_state"].samples}
    assert states[seen] == "running"
    (cpu,) = families["mica_vm_cpu_seconds"].samples
    assert cpu.value >= after.cpu_seconds
    assert families["mica_host_cpu_seconds"].samples


XTERM = NpmPackage(
    name="@xterm/xterm",
    version="6.0.0",
    sha512="TQwDdQGtwwDt+2cgKDLn0IRaSxYu1tSUjgKarSDkUM0ZNiSRXFpjxEsvc/Zgc5kq5omJ+V0a8/kIM2WD3sMOYg==",
)
ADDON_ATTACH = NpmPackage(
    name="@xterm/addon-attach",
    version="0.12.0",
    sha512="1lxvXM4JYSm60lbFmE8WMOy2oF2ip3Ye8jWorSAmwy7x8FiC53netEJ5RguL8+FSRj79MUQsNCb2hprY2QA2ig==",
)
TERMINAL = """<!DOCTYPE html><div id="terminal"></div>
<script src="@xterm/xterm/package/lib/xterm.js"></script>
<script src="@xterm/addon-attach/package/lib/addon-attach.js"></script>
<script>
window.open_terminal = url => {
    window.terminal = new Terminal({cols: 100, rows: 40, scrollback: 5000});
    terminal.open(document.getElementById("terminal"));
    window.line = new WebSocket(url);
    line.onclose = event => { window.ended = event.code; };
    terminal.loadAddon(new AttachAddon.AttachAddon(line));
    return true;
};
window.text = () => {
    const buffer = terminal.buffer.active, rows = [];
    for (let i = 0; i < buffer.length; i++)
        rows.push(buffer.getLine(i).translateToString(true));
    return rows.join("\\n");
};
window.loaded = true;
</script>"""


def test_xterm_js_attaches_as_it_is(
    host: HostedMica, mica: Mica, seen: str, tmp_path: Path
) -> None:
    """Stock xterm.js with its attach add-on: the scrollback is shown, and what is typed arrives."""
    for package in (XTERM, ADDON_ATTACH):
        unpacked_package(package, tmp_path)
    with open_console(mica, seen) as line:  # a question that no terminal shall answer later
        line.send(b"echo \x1b[6n\x1b[c\x1b]11;?\x07asked\n")
        read_until(line, r"echo .*asked\r?\n")
    ticket = mica.console_ticket(seen, framing=ConsoleFraming.RAW)
    uri = json.dumps(host.address.replace("https", "wss") + ticket.websocket)
    with (
        opened_page(TERMINAL, tmp_path) as page,
        open_console(mica, seen, mode=ConsoleMode.WATCH) as line,
    ):
        page.wait_for("window.loaded")
        page.evaluate(f"open_terminal({uri})")
        page.wait_for("/MICA GUEST UP/.test(text()) && /asked/.test(text())")
        page.evaluate("terminal.input('echo typed \u00e4\\r')")
        page.wait_for("/echo typed/.test(text())")
        said = read_until(line, r"typed \S*\r?\n")
        assert "writer" not in page.evaluate("text()"), "a notice"
        answers = re.findall(r"\d+;\d+R|\?[\d;]+c|rgb:", said.partition("asked")[2])
        assert not answers, "answers to an old question were typed"
        assert page.evaluate("window.ended") is None


def test_text_messages_are_typed_in_a_raw_console(host: HostedMica, mica: Mica, seen: str) -> None:
    ticket = mica.console_ticket(seen, framing=ConsoleFraming.RAW)
    uri = host.address.replace("https", "wss") + ticket.websocket
    with connect(uri, ssl=PinnedContext(host.fingerprint), proxy=None) as line:
        line.send("echo as text\n")
        line.send(b"echo as bytes\n")
        said = ""
        end = time.monotonic() + 30
        while not re.search(r"as text\r?\n(.|\n)*as bytes\r?\n", said):
            assert time.monotonic() < end, said
            message = line.recv(timeout=20)
            assert isinstance(message, bytes), "a notice"
            said += message.decode(errors="replace")


NOVNC = """<!DOCTYPE html><div id="screen" style="width: 800px; height: 600px"></div>
<script type="module">
import RFB from "./core/rfb.js";
window.open_screen = (url, protocols) => {
    window.said = [];
    window.rfb = new RFB(document.getElementById("screen"), url, {wsProtocols: protocols});
    for (const name of ["connect", "disconnect", "securityfailure", "desktopname"])
        rfb.addEventListener(name, event => said.push(name + JSON.stringify(event.detail ?? "")));
    return true;
};
window.lit = () => {
    const canvas = document.querySelector("canvas");
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4)
        count += pixels[i] + pixels[i + 1] + pixels[i + 2] > 0;
    return count;
};
window.loaded = true;
</script>"""


@pytest.mark.parametrize("protocols", [[], ["binary"]])
def test_novnc_in_a_browser(host: HostedMica, mica: Mica, seen: str, protocols: list[str]) -> None:
    """The page shows the guest's screen and types on its keyboard; its ticket is good once."""
    with (
        opened_page(NOVNC, inputs.browser() / "usr/share/novnc") as page,
        open_console(mica, seen, mode=ConsoleMode.WATCH) as line,
    ):
        page.wait_for("window.loaded")
        # Not before: a ticket is good for 30 s, and a browser may take longer to start.
        websocket = mica.console_ticket(seen, ConsoleKind.VNC).websocket
        uri = json.dumps(host.address.replace("https", "wss") + websocket)
        page.evaluate(f"open_screen({uri}, {json.dumps(protocols)})")
        page.wait_for("said.some(s => s.startsWith('connect'))")
        page.wait_for("lit() > 100")
        read_until(line, r"tick \d+")
        page.evaluate('rfb.sendKey(0x68, "KeyH")')
        read_until(line, rf"key {KEYS['h']}\r?\n")
        page.evaluate("rfb.disconnect()")
        page.wait_for("said.some(s => s.startsWith('disconnect'))")
        page.evaluate(f"open_screen({uri}, [])")
        page.wait_for("said.some(s => s.startsWith('disconnect'))")
        assert not page.evaluate("said.some(s => s.startsWith('connect'))"), "a second time"
