"""`mica serve` itself: it says that it is ready only once its own listener serves, refuses at once
and in one sentence what can't work, and says what it waits for at its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_api.client.hosted.supervisor import LOG_MAX_BYTES, Child, Supervisor
from remote_api.client.http.pinning import fetch_fingerprint
from tests.framework.ending import started
from tests.framework.hosted import hosted_mica, qemu_programs
from tests.framework.repository import REPOSITORY
from vmkernel.model import DatastoreKind, DatastoreSpec, Firmware, VmSpec

SERVE_S = 60.0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name the tools tree's programs."""
    scripts = qemu_programs(tmp_path_factory.mktemp("q"))
    names = {"--qemu": "qemu-system-x86_64", "--qemu-img": "qemu-img", "--swtpm": "swtpm"}
    return [word for option, name in names.items() for word in (option, str(scripts[name]))]


def _argv(folder: Path, *options: str) -> list[str]:
    words = [sys.executable, "-m", "remote_api.client", "serve", "--dir", str(folder)]
    listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    return [*words, *listen, *options]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def _refused(folder: Path, *options: str, cwd: Path = REPOSITORY) -> str:
    """The one sentence that a refused start says."""
    began = time.monotonic()
    done = subprocess.run(
        _argv(folder, *options),
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=SERVE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith("mica: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert time.monotonic() - began < 20
    return done.stderr


@contextmanager
def _served(folder: Path, *options: str, cwd: Path = REPOSITORY) -> Iterator[list[str]]:
    """The lines that a start has said once it was ready."""
    with started(
        _argv(folder, *options),
        cwd=cwd,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        ends_by=signal.SIGTERM,
    ) as process:
        watchdog = threading.Timer(SERVE_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if "Ctrl-C" in line:
                    break
            yield lines
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGINT)
            process.wait(SERVE_S)


def _address(lines: list[str]) -> str:
    return next(line.split()[1] for line in lines if line.startswith("address"))


def test_what_it_shows_is_its_own(tmp_path: Path, programs: list[str]) -> None:
    with _served(tmp_path / "s", *programs, "--accelerator", "tcg") as lines:
        shown = next(line for line in lines if line.startswith("fingerprint"))
        assert fetch_fingerprint(_address(lines)) == "".join(shown.split()[1:])
        assert any(line.startswith("  mica claim 127.0.0.1:") for line in lines), lines


@pytest.mark.parametrize(
    ("listen", "shown"),
    [
        ("[::1]:0", "https://[::1]:"),
        ("localhost:0", "https://127.0.0.1:"),
        ("0.0.0.0:0", ""),
        (":0", ""),
    ],
)
def test_the_address_that_it_shows_can_be_reached(
    tmp_path: Path, programs: list[str], listen: str, shown: str
) -> None:
    options = (*programs, "--accelerator", "tcg", "--listen", listen)
    with _served(tmp_path / "s", *options) as lines:
        address = _address(lines)
        assert address.startswith(shown)
        assert "0.0.0.0" not in address
        assert "[::]" not in address
        assert fetch_fingerprint(address)


def test_a_port_of_another_program_is_not_ours(tmp_path: Path, programs: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = _refused(tmp_path / "s", *programs, "--listen", f"127.0.0.1:{port}")
    assert f"port {port} of 127.0.0.1 is in use by another program" in said


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("192.0.2.7:8443", "192.0.2.7 is not an address of this machine"),
        ("no-such-name.invalid:8443", "the name no-such-name.invalid can't be resolved"),
    ],
)
def test_an_address_of_others_is_refused(
    tmp_path: Path, programs: list[str], listen: str, words: str
) -> None:
    assert words in _refused(tmp_path / "s", *programs, "--listen", listen)


def test_a_folder_has_one_mica(tmp_path: Path, programs: list[str]) -> None:
    options = (*programs, "--accelerator", "tcg")
    with _served(tmp_path / "s", *options) as lines:
        log = (tmp_path / "s/run/vmkernel.log").read_text()
        said = _refused(tmp_path / "s", *options)
        assert f"another mica serve uses {tmp_path / 's'}" in said
        assert fetch_fingerprint(_address(lines)), "the first one goes on"
        assert (tmp_path / "s/run/vmkernel.log").read_text().startswith(log)


_FLOOD = """
import os, socket, sys, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as say:
    say.connect(os.environ["NOTIFY_SOCKET"])
    say.send(b"READY=1")
number = 0
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    for _ in range(500):
        number += 1
        print(f"line {{number:09}} " + "x" * 100, file=sys.stderr)
    time.sleep(0.002)
print("the last line", file=sys.stderr)
{then}
"""


_REPEATS = """
while True:
    time.sleep(0.1)
    print("the last line", file=sys.stderr)
"""


def _sizes(log: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(log.parent.glob(f"{log.name}*"))]


@pytest.mark.parametrize("then", [_REPEATS, "sys.exit(3)"], ids=["runs", "crashes"])
def test_a_process_that_prints_without_end_fills_no_disk(tmp_path: Path, then: str) -> None:
    """Its log and the one before have a size; what came last is there."""
    log = tmp_path / "noisy.log"
    words = [sys.executable, "-c", _FLOOD.format(seconds=3, then=then)]
    child = Child(name="noisy", argv=words, log=log, stop_s=5)
    told: list[str] = []
    supervisor = Supervisor([child], told.append)
    supervisor.start(SERVE_S)
    try:
        largest, began = 0, time.monotonic()
        while not told if "exit" in then else "the last line" not in child.tail():
            assert time.monotonic() - began < SERVE_S, _sizes(log)
            time.sleep(0.1)
            supervisor.tend()
            largest = max(largest, sum(_sizes(log)))
        # Between two looks it can print a while: at most as much as it has printed in 3 s.
        assert largest < 3 * LOG_MAX_BYTES, largest
        supervisor.tend()
        older = log.with_suffix(".log.1").read_text().splitlines()
        assert older[0].startswith("line "), "it begins with a whole line"
        assert len(older) * 115 > LOG_MAX_BYTES // 4
        numbers = [int(line.split()[1]) for line in older if "last" not in line]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert bool(told) == ("exit" in then)
    finally:
        supervisor.stop()


def test_a_log_that_is_full_begins_anew_at_once(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    child = Child(name="x", argv=(), log=log, stop_s=1)
    child.bound_log()
    log.write_bytes(b"a" * (LOG_MAX_BYTES - 1))
    child.bound_log()
    assert _sizes(log) == [LOG_MAX_BYTES - 1]
    with log.open("ab") as process:
        process.write(b"\n" + b"b" * 10 + b"\n")
        process.flush()
        child.bound_log()
        process.write(b"c\n")
    assert log.read_bytes() == b"c\n"
    assert log.with_suffix(".log.1").read_bytes() == b"b" * 10 + b"\n"


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_a_usable_qemu_there_is_no_start(tmp_path: Path, programs: list[str]) -> None:
    folder = tmp_path / "s"
    old = _script(tmp_path / "old", "echo QEMU emulator version 7.2.22; echo pc-q35-7.2 x")
    arm = _script(tmp_path / "arm", "echo QEMU emulator version 10.0.2; echo virt-10.0 x")
    broken = _script(tmp_path / "broken", "exit 3")
    for qemu, words in (
        (Path("/nonexistent"), "/nonexistent can't be used as qemu-system-x86_64: there is no"),
        (Path("/bin/true"), "/bin/true can't be used as qemu-system-x86_64: it does not report"),
        (old, f"{old} is version 7.2.22, and Mica needs 10.0 or newer"),
        (arm, "it does not emulate PCs"),
        (broken, f"{broken} can't be used"),
    ):
        assert words in _refused(folder, *programs, "--qemu", str(qemu)), qemu
    for option, words in (
        ("--qemu-img", "/bin/false can't be used as qemu-img"),
        ("--swtpm", "/bin/false can't be used"),
        ("--qemu-dir", "--qemu-dir /bin/false is not a folder"),
    ):
        assert words in _refused(folder, *programs, option, "/bin/false"), option
    said = _refused(folder, *programs, "--qemu-dir", str(tmp_path))
    assert "contains no QEMU firmware" in said


def test_the_folder_that_it_is_started_in_is_not_imported(
    tmp_path: Path, programs: list[str]
) -> None:
    folder = tmp_path / "cwd"
    folder.mkdir()
    planted = ("websockets", "h11", "msgspec", "vmkernel", "secrets")
    for name in planted:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w')\n")
    # `-P` is for the servers; the command is started as it is when it is installed.
    script = tmp_path / "mica"
    script.write_text("from remote_api.client.cli import main\nmain()\n")
    with started(
        [sys.executable, script, "-o", "json", "serve", *_argv(tmp_path / "s", *programs)[4:]],
        cwd=folder,
        env=_environment(),
        stdout=subprocess.PIPE,
        ends_by=signal.SIGTERM,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["address"]
        process.send_signal(signal.SIGINT)
        assert process.wait(SERVE_S) == 0
    assert not [
        name
        for name in ("websockets", "h11", "msgspec", "vmkernel", "secrets")
        if (tmp_path / name).exists()
    ]


def test_versions_and_what_is_missing_are_in_the_host_s_answer(tmp_path: Path) -> None:
    share = tmp_path / "share"
    (share / "qemu").mkdir(parents=True)
    (share / "qemu/vgabios-stdvga.bin").touch()
    with hosted_mica(tmp_path, "--qemu-dir", str(share)) as host, host.client() as mica:
        status = mica.host().status
        versions = {program.name: program.version for program in status.programs}
        assert set(versions) == {"qemu-system-x86_64", "qemu-img", "swtpm"}
        assert versions["qemu-img"] == versions["qemu-system-x86_64"]
        codes = {finding.code: finding.message for finding in status.findings}
        if not Path("/usr/share/OVMF/OVMF_CODE_4M.fd").exists():
            assert "VMs with UEFI (the default) can't start" in codes["no-uefi"]


def test_ctrl_c_says_what_it_waits_for_and_a_second_one_powers_off(tmp_path: Path) -> None:
    with hosted_mica(tmp_path) as host:
        with host.client() as mica:
            path = str(host.datastore_folder("main"))
            store = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=path)
            mica.wait(mica.create_datastore("main", store))
            # Firmware that finds nothing to start takes no notice of the power button.
            for name in ("deaf", "dumb"):
                spec = VmSpec(datastore="main", memory_bytes=64 << 20, firmware=Firmware.BIOS)
                mica.create_vm(name, spec)
                mica.wait(mica.start_vm(name))
        log = tmp_path / "serve.log"
        host.process.send_signal(signal.SIGINT)
        _wait_for(log, "waiting up to 30 s for guests to shut down: deaf, dumb")
        assert "press Ctrl-C again to power the guests off" in log.read_text()
        with host.client() as mica:
            assert {vm.id for vm in mica.vms()} == {"deaf", "dumb"}, "it still answers"
        began = time.monotonic()
        host.process.send_signal(signal.SIGINT)
        _wait_for(log, "powering guests off: deaf, dumb")
        assert host.process.wait(20) == 0
        assert time.monotonic() - began < 15


def _wait_for(log: Path, text: str) -> None:
    end = time.monotonic() + 20
    while text not in log.read_text():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)
