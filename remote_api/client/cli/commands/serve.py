"""`mica serve`: hosted mode, Mica as an ordinary program without root."""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType

import click
import msgspec

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, pass_session
from remote_api.client.errors import ConflictError, MisuseError
from remote_api.client.hosted.listening import listening_socket, reachable_address
from remote_api.client.hosted.supervisor import Child, Supervisor
from remote_api.client.http.pinning import shown_fingerprint

__all__ = ["COMMANDS", "HOST_MODULES", "serve"]

HOST_MODULES = ("argon2", "h11", "pycdlib", "pyroute2", "vmkernel.wiring")
"""What the servers import beyond the client: the extra `host` of pyproject.toml, and our own."""
_ROOT = Path(__file__).resolve().parents[4]
"""The folder that our own packages are in."""
_TICK_S = 0.1
_START_S = 60.0
_MAX_SOCKET_PATH = 107
_STOP_VMS_S = 150.0
"""vmkernel's own limit for its guests, and room for a power-off."""
_STOP_S = 15.0


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    fingerprint_sha256: str


class _Interrupted(Exception):  # noqa: N818 - not an error
    pass


class _Signals:
    """Ctrl-C: the first one interrupts, the others are counted."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def again(self) -> bool:
        """True once there was a second one."""
        return self.count > 1

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            raise _Interrupted


@click.command(
    epilog="Requires Linux, QEMU 10.0 or newer (on Debian: apt install qemu-system-x86 qemu-utils"
    " ovmf swtpm) and the Python package mica-hypervisor. KVM is used if you can open /dev/kvm."
    " Guests have user networking: they can connect out, but accept no connections from outside."
    " To run a second host on this machine, give it another --dir and another --listen."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the host's settings, VMs and logs (default: $XDG_STATE_HOME/mica or"
    " ~/.local/state/mica). Datastores are in directories that you choose.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to listen on; also [IPV6]:PORT, or :PORT for all addresses. Port 0 picks a free"
    " port.",
)
@click.option("--qemu", type=click.Path(path_type=Path), help="Path of qemu-system-x86_64.")
@click.option("--qemu-img", type=click.Path(path_type=Path), help="Path of qemu-img.")
@click.option("--swtpm", type=click.Path(path_type=Path), help="Path of swtpm.")
@click.option(
    "--qemu-dir", type=click.Path(path_type=Path), help="Directory of QEMU's firmware files."
)
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="How guests run: `auto` is KVM if a test guest runs on it, otherwise emulation (tcg).",
)
@click.option(
    "--stop-vms/--keep-vms",
    default=True,
    show_default=True,
    help="Shut down running guests at the end, or keep them running.",
)
@click.option(
    "--pull-from-loopback",
    is_flag=True,
    help="Allow `mica image pull` from this machine (127.0.0.1, ::1).",
)
@click.option("--verbose", is_flag=True, help="Write detailed logs.")
@pass_session
def serve(
    session: Session,
    folder: Path | None,
    listen: str,
    qemu: Path | None,
    qemu_img: Path | None,
    swtpm: Path | None,
    qemu_dir: Path | None,
    accelerator: str,
    stop_vms: bool,
    pull_from_loopback: bool,
    verbose: bool,
) -> None:
    """Run a Mica host on this machine, until Ctrl-C.

    VMs with autostart are started, and shut down in reverse order at the end. A second Ctrl-C
    powers them off.
    """
    _check_extra()
    folder = (folder or _default_folder()).absolute()
    run = folder / "run"
    if len(os.fsencode(run / "remote_api.say")) > _MAX_SOCKET_PATH:
        raise MisuseError(f"--dir {folder} is too long for a socket path; give a shorter one")
    given = (("--qemu", qemu), ("--qemu-img", qemu_img), ("--swtpm", swtpm))
    extra = [word for name, path in given if path for word in (name, str(path.absolute()))]
    extra += ["--qemu-dir", str(qemu_dir.absolute())] if qemu_dir else []
    extra += ["--accelerator", accelerator]
    extra += ["--stop-vms"] if stop_vms else []
    extra += ["--pull-from-loopback"] if pull_from_loopback else []
    extra += ["--boot-name", secrets.token_hex(8)]
    with ExitStack() as held:
        held.enter_context(_owned(folder))
        sock = held.enter_context(closing(listening_socket(listen)))
        api = _child("remote_api", run, ["--listen-fd", str(sock.fileno())], verbose=verbose)
        api.pass_fds = (sock.fileno(),)
        mode = ["--mode", "hosted", "--state-dir", str(folder), "--run-dir", str(run)]
        kernel = _child("vmkernel", run, [*mode, *extra], verbose=verbose)
        kernel.stop_s = _STOP_VMS_S if stop_vms else _STOP_S
        supervisor = Supervisor([kernel, api], lambda text: _say(session, text))
        signals = _Signals()
        try:
            supervisor.start(_START_S)
            fingerprint = api.told["X_MICA_FINGERPRINT"]
            _tell(session, reachable_address(sock), fingerprint, _claim_code(run), run)
            while True:
                time.sleep(_TICK_S)
                supervisor.tend()
        except _Interrupted:
            _say(
                session,
                "stopping; press Ctrl-C again to power the guests off" if stop_vms else "stopping",
            )
        finally:
            supervisor.stop(signals.again)


def _child(name: str, run: Path, words: list[str], *, verbose: bool) -> Child:
    """A server as a process; nothing of the folder that we were started in is imported by it."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = os.pathsep.join([str(_ROOT), *(path for path in given if Path(path).is_absolute())])
    log = run / f"{name}.log"
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    return Child(
        name=name,
        argv=[
            *(sys.executable, "-P", "-m", name, "--control", str(run / "control.sock")),
            *words,
            *(["--verbose"] if verbose else []),
        ],
        log=log,
        stop_s=_STOP_S,
        environment={"PYTHONPATH": search},
    )


def _check_extra() -> None:
    """Refuse to start without what the servers import."""
    for name in HOST_MODULES:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConflictError(
                f"mica serve needs the Python module {name}: install the package mica-hypervisor"
            )


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone. Raises ConflictError."""
    try:
        (folder / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "run/serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConflictError(
            f"can't use {error.filename}: {error.strerror}; give another --dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno != errno.EWOULDBLOCK:
            raise
        raise ConflictError(
            f"another mica serve uses {folder}: stop it, or give another --dir and --listen"
        ) from error
    try:
        yield
    finally:
        os.close(lock)


def _tell(session: Session, address: str, fingerprint: str, code: str | None, run: Path) -> None:
    """Print where the API is and how to claim it."""
    if session.json:
        ready = {"address": address, "fingerprint_sha256": fingerprint, "claim_code": code}
        output.print_json(ready, compact=True)
        return
    where = address.removeprefix("https://")
    output.print_line(f"address      {address}")
    output.print_line(f"fingerprint  {shown_fingerprint(fingerprint)}")
    if code is not None:
        output.print_line(f"claim code   {code}")
        output.print_paragraph(f"\n  mica claim {where} --code {code} --fingerprint {fingerprint}")
    output.print_paragraph(f"\nlogs are in {run}; press Ctrl-C to stop")


def _say(session: Session, text: str) -> None:
    if not session.quiet:
        output.print_line(f"mica serve: {text}", err=True)


def _claim_code(run: Path) -> str | None:
    try:
        return msgspec.json.decode((run / "claim.json").read_bytes(), type=_Claim).code
    except (OSError, msgspec.DecodeError):
        return None


def _default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "mica"


COMMANDS = (serve,)
