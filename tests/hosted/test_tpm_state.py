"""Our codec of swtpm's file against the real program; a VM from before keeps its TPM."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance_build.tools.sandbox import loader_argv
from tests.framework import inputs
from tests.framework.ending import started
from vmkernel.vm.launch.launcher import TpmLaunch
from vmkernel.vm.nonvolatile import tpm_state

pytestmark = pytest.mark.timeout(120)

_PLAIN, _SESSIONS = 0x8001, 0x8002
_NV_DEFINE, _NV_WRITE, _NV_READ, _SHUTDOWN = 0x12A, 0x137, 0x14E, 0x145
_OWNER, _INDEX, _BYTES = 0x40000001, 0x01500001, 32
_NO_PASSWORD = struct.pack(">IIHBH", 9, 0x40000009, 0, 0, 0)
# TPM 2.0 Library, parts 2 and 3.


class Tpm:
    """Commands to a swtpm."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def _command(self, tag: int, code: int, body: bytes) -> bytes:
        self._stream.sendall(struct.pack(">HII", tag, 10 + len(body), code) + body)
        answer = self._stream.recv(4096)
        (result,) = struct.unpack_from(">I", answer, 6)
        assert result == 0, f"{code:#x}: {result:#x}"
        return answer[10:]

    def define(self) -> None:
        public = struct.pack(">IHIHH", _INDEX, 0x000B, 0x00060006, 0, _BYTES)
        body = struct.pack(">I", _OWNER) + _NO_PASSWORD + bytes(2)
        self._command(_SESSIONS, _NV_DEFINE, body + struct.pack(">H", len(public)) + public)

    def write(self, data: bytes) -> None:
        data = data.ljust(_BYTES, b".")
        body = struct.pack(">II", _OWNER, _INDEX) + _NO_PASSWORD
        self._command(_SESSIONS, _NV_WRITE, body + struct.pack(">H", len(data)) + data + bytes(2))

    def read(self) -> bytes:
        body = struct.pack(">II", _OWNER, _INDEX) + _NO_PASSWORD + struct.pack(">HH", _BYTES, 0)
        return self._command(_SESSIONS, _NV_READ, body)[6 : 6 + _BYTES].rstrip(b".")


@contextmanager
def tpm(folder: Path, state: str, *, kill: bool = False) -> Iterator[Tpm]:
    """A swtpm with that state, shut down in order at the end, or killed."""
    folder.mkdir(exist_ok=True)
    at = folder / "tpm.sock"
    at.unlink(missing_ok=True)
    # Not under the jail's list of system calls: this one makes its socket itself.
    argv = [*loader_argv(inputs.tools(), "swtpm"), "socket", "--tpm2", "--terminate"]
    argv += ["--tpmstate", state, "--server", f"type=unixio,path={at}", "--flags", "startup-clear"]
    with started(argv, stdout=subprocess.DEVNULL) as process:
        for _ in range(200):
            if at.exists():
                break
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(20)
            stream.connect(str(at))
            found = Tpm(stream)
            yield found
            if kill:
                process.kill()
            else:
                found._command(_PLAIN, _SHUTDOWN, bytes(2))
        process.wait(20)


def _as_launched(path: Path) -> str:
    arguments = TpmLaunch(state=path, fd=3).arguments(3)
    return arguments[arguments.index("--tpmstate") + 1]


def test_the_state_of_before_lives_on_in_one_file(tmp_path: Path) -> None:
    vm = tmp_path / "vm"
    (vm / "tpm").mkdir(parents=True)
    with tpm(tmp_path / "run", f"dir={vm}/tpm,mode=0600") as old:
        old.define()
        old.write(b"sealed before")
    path = tpm_state.prepare(vm)
    assert [item.name for item in vm.iterdir()] == ["tpm.state"]
    with tpm(tmp_path / "run", _as_launched(path)) as new:
        assert new.read() == b"sealed before"
        new.write(b"sealed since")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    with tpm(tmp_path / "run", _as_launched(path)) as new:
        assert new.read() == b"sealed since"
        tpm_state.copy(vm, snapshot)  # while it runs
        new.write(b"sealed later")
    tpm_state.copy(snapshot, vm)
    with tpm(tmp_path / "run", _as_launched(path)) as new:
        assert new.read() == b"sealed since"


def test_the_stored_sample_and_a_new_file_are_taken(tmp_path: Path) -> None:
    sample = Path(__file__).parents[1] / "unit/vm/samples/tpm2-00.permall"
    vm = tmp_path / "vm"
    (vm / "tpm").mkdir(parents=True)
    (vm / "tpm/tpm2-00.permall").write_bytes(sample.read_bytes())
    with tpm(tmp_path / "run", _as_launched(tpm_state.prepare(vm))) as old:
        assert old.read() == b"kept before the file"
    new = tmp_path / "new"
    new.mkdir()
    path = tpm_state.prepare(new)
    with tpm(tmp_path / "run", _as_launched(path)) as fresh:
        fresh.define()
        fresh.write(b"new")
        assert fresh.read() == b"new"
    assert set(tpm_state.decode(path.read_bytes())) == {"permall"}


def test_a_kill_in_the_middle_of_writes_leaves_a_tpm(tmp_path: Path) -> None:
    """Whatever the kill leaves, the next start has what was written last, or the good copy."""
    vm = tmp_path / "vm"
    vm.mkdir()
    path = tpm_state.prepare(vm)
    with tpm(tmp_path / "run", _as_launched(path)) as first:
        first.define()
        first.write(b"0")
    for turn in range(1, 5):
        began, _ = tpm_state.prove(vm)
        done = threading.Event()
        with tpm(tmp_path / "run", _as_launched(path), kill=True) as busy:
            tpm_state.keep(vm, began)

            def write(busy: Tpm = busy, done: threading.Event = done) -> None:
                with contextlib.suppress(OSError, struct.error, AssertionError):
                    for number in range(100_000):
                        busy.write(f"{number}".encode())
                        done.set()

            writer = threading.Thread(target=write)
            writer.start()
            assert done.wait(20)
            time.sleep(0.05 * turn)
        writer.join(20)
        began, _ = tpm_state.prove(vm)
        with tpm(tmp_path / "run", _as_launched(path)) as again:
            assert re.fullmatch(rb"[0-9]+", again.read())
