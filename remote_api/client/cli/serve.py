"""`mica serve`: hosted mode, Mica as an ordinary program without root."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

import click
import msgspec

from remote_api.client.cli.common import Session, pass_session
from remote_api.client.errors import ClientError, MisuseError
from remote_api.client.pinning import fetch_fingerprint, shown_fingerprint
from remote_api.client.supervisor import Child, ChildFailedError, Supervisor

__all__ = ["serve"]

_TICK_S = 0.1
_START_S = 60.0
_MAX_SOCKET_PATH = 107
_STOP_VMS_S = 60.0


class _Interrupted(Exception):  # noqa: N818 - not an error
    pass


class _Claim(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    fingerprint_sha256: str


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where all that lasts is kept; $XDG_STATE_HOME/mica where none is given.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    metavar="HOST:PORT",
    help="Port 0 takes any free one.",
)
@click.option("--qemu", type=click.Path(path_type=Path), help="qemu-system-x86_64 to use.")
@click.option("--qemu-img", type=click.Path(path_type=Path), help="qemu-img to use.")
@click.option("--swtpm", type=click.Path(path_type=Path), help="swtpm to use.")
@click.option("--qemu-dir", type=click.Path(path_type=Path), help="Where QEMU's firmware lies.")
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="What runs guests; `auto` proves KVM by a short guest first.",
)
@click.option(
    "--stop-vms/--keep-vms",
    default=True,
    show_default=True,
    help="What becomes of running guests at the end.",
)
@click.option(
    "--pull-from-loopback",
    is_flag=True,
    help="Let `mica image pull` fetch from this very machine (127.0.0.1, ::1).",
)
@click.option("--verbose", is_flag=True, help="Detailed logs.")
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
    """Run Mica on this machine until Ctrl-C.

    VMs with autostart are started with it, and ended with it in reverse order.
    """
    folder = (folder or _default_folder()).absolute()
    run = folder / "run"
    control = run / "control.sock"
    if len(os.fsencode(control)) > _MAX_SOCKET_PATH:
        raise MisuseError(f"{folder} is too long for the socket in it; give a shorter --dir")
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    host, port = _listen_address(listen)
    extra = [
        argument
        for name, value in (
            ("--qemu", qemu),
            ("--qemu-img", qemu_img),
            ("--swtpm", swtpm),
            ("--qemu-dir", qemu_dir),
        )
        if value is not None
        for argument in (name, str(value))
    ]
    extra += ["--accelerator", accelerator]
    extra += ["--stop-vms"] if stop_vms else []
    extra += ["--pull-from-loopback"] if pull_from_loopback else []
    extra += ["--verbose"] if verbose else []
    extra += ["--boot-name", secrets.token_hex(8)]
    children = [
        Child(
            name="vmkernel",
            argv=[
                *(sys.executable, "-m", "vmkernel", "--mode", "hosted"),
                *("--state-dir", str(folder), "--run-dir", str(run), "--control", str(control)),
                *extra,
            ],
            log=run / "vmkernel.log",
            stop_s=_STOP_VMS_S if stop_vms else 15.0,
        ),
        Child(
            name="remote_api",
            argv=[
                *(sys.executable, "-m", "remote_api", "--control", str(control)),
                *("--listen", f"{host}:{port}"),
                *(["--verbose"] if verbose else []),
            ],
            log=run / "remote_api.log",
            stop_s=15.0,
        ),
    ]
    supervisor = Supervisor(children, lambda text: click.echo(f"mica serve: {text}", err=True))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        supervisor.start()
        _tell(session, supervisor, f"https://{host}:{port}", run)
        while True:
            time.sleep(_TICK_S)
            supervisor.tend()
    except _Interrupted:
        if not session.json:
            click.echo("mica serve: ending", err=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        supervisor.stop()


def _tell(session: Session, supervisor: Supervisor, address: str, run: Path) -> None:
    """Wait until the API answers, then say where it is and how to claim it."""
    end = time.monotonic() + _START_S
    while True:
        supervisor.tend()
        try:
            fingerprint = fetch_fingerprint(address, timeout_s=2.0)
            break
        except ClientError as error:
            if time.monotonic() > end:
                raise ChildFailedError(
                    f"the API did not answer within {_START_S:g} s; see {run}/*.log ({error})"
                ) from error
        time.sleep(_TICK_S)
    supervisor.proven = True
    code = _claim_code(run)
    if session.json:
        ready = {"address": address, "fingerprint_sha256": fingerprint, "claim_code": code}
        click.echo(msgspec.json.encode(ready))
        return
    where = address.removeprefix("https://")
    click.echo(f"address      {address}")
    click.echo(f"fingerprint  {shown_fingerprint(fingerprint)}")
    if code is not None:
        click.echo(f"claim code   {code}")
        click.echo(f"\n  mica claim {where} --code {code} --fingerprint {fingerprint}")
    click.echo(f"\nlogs in {run}; Ctrl-C ends it")


def _claim_code(run: Path) -> str | None:
    try:
        return msgspec.json.decode((run / "claim.json").read_bytes(), type=_Claim).code
    except (OSError, msgspec.DecodeError):
        return None


def _listen_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"--listen {text}: write HOST:PORT")
    if int(port):
        return host, int(port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host.strip("[]"), 0))
        return host, int(probe.getsockname()[1])


def _default_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "mica"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _Interrupted
