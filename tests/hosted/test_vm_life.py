"""A guest stands still, sleeps on disk, crashes, runs out of space, and starts with its host."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from remote_api.client.errors import OperationFailedError, RefusedError
from remote_api.client.sdk import Mica
from tests.framework.guest.pattern import pattern_crc
from tests.framework.guest_images import upload_guest
from tests.framework.hosted import HostedMica, hosted_mica, unclaimed_mica
from tests.framework.repository import REPOSITORY
from tests.framework.talk import Talk
from vmkernel.model import (
    BootSpec,
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    DisplayModel,
    Firmware,
    KernelBoot,
    RestartPolicy,
    RestartSpec,
    Role,
    TokenSpec,
    VmSpec,
    VmState,
    VmStatus,
    VolumeSpec,
    WatchdogAction,
    WatchdogSpec,
)

MIB = 1 << 20
TINY_MIB = 48

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted"),
    pytest.mark.story,
]


@contextmanager
def _tiny_filesystem(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    options = f"size={TINY_MIB}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tiny", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def folder(short_folder: Path) -> Iterator[Path]:
    """A host's folder, with a small file system in it."""
    made = short_folder / "life"
    made.mkdir()
    with _tiny_filesystem(made / "tiny"):
        yield made


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[tuple[HostedMica, Mica]]:
    """A host with the guest `web`; its disk's datastore is small. The last test ends the host."""
    with ExitStack() as opened:
        host = opened.enter_context(hosted_mica(folder))
        mica = opened.enter_context(host.client())
        for name, path in (
            ("main", host.datastore_folder("main")),
            ("tiny", folder / "tiny"),
        ):
            spec = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(path))
            mica.wait(mica.create_datastore(name, spec))
        upload_guest(mica)
        mica.wait(mica.create_volume("data", VolumeSpec(datastore="tiny", size_bytes=40 * MIB)))
        cmdline = "console=ttyS0 quiet panic=30 mica.load=pvpanic-pci"
        mica.create_vm(
            "web",
            VmSpec(
                datastore="main",
                memory_bytes=256 * MIB,
                firmware=Firmware.BIOS,
                boot=BootSpec(kernel=KernelBoot(kernel="kernel", initrd="initrd", cmdline=cmdline)),
                display=DisplayModel.NONE,
                disks=(DiskSpec(volume="data"),),
                restart=RestartSpec(policy=RestartPolicy.ON_FAILURE),
                watchdog=WatchdogSpec(action=WatchdogAction.RESET),
            ),
        )
        mica.wait(mica.start_vm("web"))
        with Talk(mica, "web") as talk:
            talk.until("MICA GUEST UP")
        yield host, mica


def _command(host: HostedMica, *words: str) -> str:
    environment = {
        **os.environ,
        "MICA_HOST": host.address,
        "MICA_TOKEN": str(host.token),
        "MICA_FINGERPRINT": host.fingerprint,
    }
    return subprocess.run(
        [sys.executable, "-m", "remote_api.client", *words],
        cwd=REPOSITORY,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def _until(mica: Mica, state: VmState, timeout_s: float = 60.0) -> VmStatus:
    end = time.monotonic() + timeout_s
    while (status := mica.vm("web").status).state is not state:
        assert time.monotonic() < end, f"{status.state} ({status.reason}), not {state}"
        time.sleep(0.1)
    return status


def _ticks(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"tick (\d+)\r?\n", text)]


def _qemu_pid(folder: Path) -> int:
    found = subprocess.run(
        ["pgrep", "-f", f"qemu.*guest=web.*{folder}|{folder}.*guest=web"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(found.stdout.split()[0])


def test_pause_and_suspend(running: tuple[HostedMica, Mica]) -> None:
    """The guest's counter stands still and goes on; nothing starts anew."""
    host, mica = running
    with Talk(mica, "web") as talk:
        talk.until(r"tick \d+")
        mica.wait(mica.pause_vm("web"))
        assert mica.vm("web").status.state is VmState.PAUSED
        time.sleep(2)
        mica.wait(mica.resume_vm("web"))
        last = _ticks(talk.until(r"tick \d+\r?\n.*tick \d+"))[-1]
    assert "is suspended" in _command(host, "vm", "suspend", "web")
    vm = mica.vm("web")
    assert vm.status.state is VmState.SUSPENDED
    assert vm.status.memory_image is not None
    assert vm.status.memory_image.size_bytes > 8 * MIB
    with pytest.raises(RefusedError) as caught:
        mica.patch_vm("web", {"memory_bytes": 512 * MIB})
    assert caught.value.problem.status == 409
    with pytest.raises(OperationFailedError, match="suspended"):  # the memory knows the disk
        mica.wait(mica.resize_volume("data", 48 * MIB))
    mica.wait(mica.resume_vm("web"))
    with Talk(mica, "web") as talk:
        text = talk.until(r"tick \d+")
        assert "READY" not in text
        first = _ticks(text)[0]
        talk.ask("echo still here", "still here")
    assert last < first < last + 60
    assert not list((host.folder / "datastores/main/vms/web").glob("suspend*"))


def test_a_guest_that_boots_again_shuts_down_all_the_same(
    running: tuple[HostedMica, Mica],
) -> None:
    """Its firmware and its kernel lose the power button's first press."""
    _, mica = running
    mica.reset_vm("web")
    mica.wait(mica.shut_down_vm("web"))
    assert mica.vm("web").status.state is VmState.STOPPED
    mica.wait(mica.start_vm("web"))
    with Talk(mica, "web") as talk:
        talk.until("MICA GUEST UP")


def test_a_full_datastore_costs_no_data(folder: Path, running: tuple[HostedMica, Mica]) -> None:
    _, mica = running
    filler = folder / "tiny" / "filler"
    filler.write_bytes(b"\0" * (20 * MIB))
    with Talk(mica, "web") as talk:
        talk.say(f"write vda 0 {36 * MIB} 99")
        status = _until(mica, VmState.PAUSED)
        assert "no space" in (status.reason or "")
        time.sleep(6)  # a look for space finds none
        assert mica.vm("web").status.state is VmState.PAUSED
        filler.unlink()
        _until(mica, VmState.RUNNING)
        talk.until(rf"write vda 0 {36 * MIB}: done")
        talk.ask(f"sum vda 0 {36 * MIB}", pattern_crc(0, 36 * MIB, 99))


def test_a_watchdog_bites_as_wanted(running: tuple[HostedMica, Mica]) -> None:
    """The guest starts anew, then stands still and goes on; both times it is told why."""
    _, mica = running
    with Talk(mica, "web") as talk:
        boot = _boot(talk)
        talk.ask("watchdog 2", "watchdog: 2 seconds")
        talk.until("MICA GUEST UP")
        assert _boot(talk) != boot
        assert mica.vm("web").status.state is VmState.RUNNING
        mica.patch_vm("web", {"watchdog": {"action": "pause"}})
        boot = _boot(talk)
        talk.ask("watchdog 2", "watchdog: 2 seconds")
        assert "watchdog" in (_until(mica, VmState.PAUSED).reason or "")
        mica.wait(mica.resume_vm("web"))
        assert _boot(talk) == boot
    fired = [action for kind, action in _happened(mica) if kind == "vm.watchdog-fired"]
    assert fired == ["reset", "pause"]


def test_a_panic_as_wanted(running: tuple[HostedMica, Mica]) -> None:
    host, mica = running
    _command(host, "vm", "set-restart", "web", "--on-panic", "pause")
    with Talk(mica, "web") as talk:
        talk.until(r"tick \d+")
        talk.say("crash")
        status = _until(mica, VmState.PAUSED)
        assert "panic" in (status.reason or "")
        with pytest.raises(OperationFailedError, match="reset it"):
            mica.wait(mica.resume_vm("web"))
        mica.wait(mica.reset_vm("web"))
        talk.until("MICA GUEST UP")
        _command(host, "vm", "set-restart", "web", "--on-panic", "reset")
        talk.say("crash")
        talk.until("MICA GUEST UP")
        assert mica.vm("web").status.state is VmState.RUNNING
    _command(host, "vm", "set-restart", "web", "--on-panic", "power-off")
    _starts_again(mica, lambda: _say(mica, "crash"))
    kinds = [kind for kind, _ in _happened(mica)]
    assert (kinds.count("vm.guest-panicked"), kinds.count("vm.restarting")) == (3, 1)


def test_a_killed_qemu_is_started_again(folder: Path, running: tuple[HostedMica, Mica]) -> None:
    _, mica = running
    _starts_again(mica, lambda: os.kill(_qemu_pid(folder), signal.SIGKILL))


def test_a_guest_that_goes_off_comes_back_where_that_is_wanted(
    running: tuple[HostedMica, Mica],
) -> None:
    host, mica = running
    _command(host, "vm", "set-restart", "web", "always")
    _starts_again(mica, lambda: _say(mica, "off"))
    _command(host, "vm", "set-restart", "web", "on-failure")
    planned = _happened(mica).count(("vm.restart-planned", ""))
    _say(mica, "off")
    _until(mica, VmState.STOPPED)
    # A start again is planned with the end, or never.
    assert _happened(mica).count(("vm.restart-planned", "")) == planned >= 1
    assert mica.vm("web").status.restart is None
    mica.wait(mica.start_vm("web"))


def _say(mica: Mica, command: str) -> None:
    """Tell the guest something that it may not live to answer."""
    with Talk(mica, "web") as talk:
        talk.say(command)
        time.sleep(0.5)


def _starts_again(mica: Mica, end_it: Callable[[], object]) -> None:
    """What ends the guest is done, and it comes back by itself; that is counted."""
    before = mica.vm("web").status
    started_at = before.started_at
    attempts = 0 if before.restart is None else before.restart.attempts
    end_it()
    end = time.monotonic() + 60
    while (status := mica.vm("web").status).started_at in (started_at, None):
        assert time.monotonic() < end, status
        time.sleep(0.1)
    status = _until(mica, VmState.RUNNING)
    assert status.restart is not None
    assert status.restart.attempts == attempts + 1
    with Talk(mica, "web") as talk:
        talk.until("MICA GUEST UP")


def _boot(talk: Talk) -> str:
    """Which start of the guest's kernel this is."""
    return talk.ask("boot", r"boot \S+").rpartition("boot ")[2].split()[0]


def _happened(mica: Mica) -> list[tuple[str, str]]:
    """What there was of the VM so far: types of events, and what was done."""
    mark = f"mark-{time.monotonic_ns()}"
    mica.create_token(mark, TokenSpec(role=Role.VIEWER))
    mica.delete_token(mark)
    seen = []
    first = mica.event_position().rpartition("-")[0] + "-" + "0" * 12
    for event in mica.events(first, reconnect=False):
        if event.subject.id == "web":
            seen.append((event.type, str(event.data.get("action", ""))))
        elif (event.type, event.subject.id) == ("token.deleted", mark):
            break
    return seen


def test_it_sleeps_and_wakes_with_its_host(folder: Path, running: tuple[HostedMica, Mica]) -> None:
    """`mica serve` ends: the guest goes to disk; it starts again: the guest goes on, once."""
    host, mica = running
    said = _command(host, "vm", "set-autostart", "web", "--enable", "--order", "7")
    assert "order 7" in said
    _command(host, "vm", "set-stop", "web", "--action", "suspend")
    with Talk(mica, "web") as talk:
        last = _ticks(talk.until(r"tick \d+"))[-1]
    earlier = {operation.id for operation in mica.operations()}
    host.process.send_signal(signal.SIGINT)
    host.process.wait(90)
    assert (folder / "datastores/main/vms/web/suspend.json").exists()
    with unclaimed_mica(folder) as again:
        again.token = host.token
        with again.client() as mica:
            _until(mica, VmState.RUNNING)
            with Talk(mica, "web") as talk:
                text = talk.until(r"tick \d+")
            assert "READY" not in text
            assert last < _ticks(text)[0] < last + 60
            new = [o for o in mica.operations() if o.id not in earlier]
            starts = [o for o in new if o.kind == "vm.start"]
            assert [o.actor for o in starts] == ["autostart"]
            mica.wait(mica.power_off_vm("web"))
            before = again.pid("vmkernel")
            os.kill(before, signal.SIGKILL)
            _answers_again(again, mica, before)
            time.sleep(1)
            assert mica.vm("web").status.state is VmState.STOPPED


def _answers_again(host: HostedMica, mica: Mica, before: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            if host.pid("vmkernel") != before and mica.vm("web"):
                return
        except Exception as error:
            if time.monotonic() > end:
                raise AssertionError(host.logs()) from error
        time.sleep(0.1)
