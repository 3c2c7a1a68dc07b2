"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import click

from remote_api.client.cli import output
from remote_api.client.cli.common import Session, pass_session, say
from remote_api.client.cli.parameters import NAME
from vmkernel.model import ConsoleMode, ConsoleNotice, VmState

__all__ = ["console", "keys", "nmi", "screenshot", "vnc"]

_WITH_SCREEN = frozenset({VmState.STARTING, VmState.RUNNING, VmState.PAUSED, VmState.STOPPING})


@click.command("console")
@click.argument("vm_id", type=NAME)
@click.option("--watch", "mode", flag_value=ConsoleMode.WATCH.value, help="Only watch.")
@click.option(
    "--takeover",
    "mode",
    flag_value=ConsoleMode.TAKEOVER.value,
    help="Write, whoever writes now; that one watches on.",
)
@pass_session
def console(session: Session, vm_id: str, mode: str | None) -> None:
    """Join a virtual machine's serial console; leave with Ctrl-].

    Any number may watch, one writes: the first who comes, until it leaves or another takes over.
    """
    from remote_api.client.console import interact, open_console

    asked = ConsoleMode(mode) if mode else ConsoleMode.WRITE
    known: list[ConsoleNotice] = []

    def notice(now: ConsoleNotice) -> None:
        if not session.quiet and (not known or known[-1] != now):
            _tell(vm_id, now, asked, first=not known)
        known.append(now)

    with session.mica() as mica, open_console(mica, vm_id, mode=asked) as socket:
        if sys.stdin.isatty() and not session.quiet:
            output.print_line(f"console of {vm_id}; leave with Ctrl-]", err=True)
        reason = interact(socket, on_notice=notice)
    if not session.quiet:
        output.print_paragraph(f"\nconsole of {vm_id}: {reason}", err=True)


def _tell(vm_id: str, now: ConsoleNotice, asked: ConsoleMode, *, first: bool) -> None:
    if now.writer or asked is ConsoleMode.WATCH:
        text = "" if first else "you write" if now.writer else ""
    elif now.holder is not None:
        text = f"{now.holder} writes, you watch; `mica console {vm_id} --takeover` changes that"
    else:
        text = "nobody writes; whoever types first does"
    if text:
        output.print_in_raw_terminal(f"[{text}]")


@click.command("vnc")
@click.argument("vm_id", type=NAME)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Any free one by default.")
@click.option(
    "--viewer",
    metavar="CMD",
    help="Start this viewer, and end with it. Its address is added in the form that the viewer"
    " takes, or filled in for {port}, {display} (PORT-5900) or {uri}.",
)
@pass_session
def vnc(session: Session, vm_id: str, port: int, viewer: str | None) -> None:
    """Open a local port to a virtual machine's screen, for any VNC viewer; Ctrl-C ends.

    Viewers may come and go. Every user of this machine can reach the port meanwhile.
    """
    from remote_api.client.vnc import VncPort, started_viewer, viewer_words

    with session.mica() as mica:
        state = mica.vm(vm_id).status.state
        if state not in _WITH_SCREEN and not session.quiet:
            output.print_line(f"VM {vm_id} is {state}; viewers see it once it runs", err=True)
        door = VncPort(
            mica,
            vm_id,
            port=port,
            on_failure=lambda text: output.print_line(f"mica: {text}", err=True),
        )
        try:
            output.print_line(f"vnc://127.0.0.1:{door.port}")
            output.flush()
            if viewer is None:
                door.serve()
                return
            threading.Thread(target=door.serve, daemon=True).start()
            with started_viewer(viewer_words(viewer, door.port)) as running:
                running.wait()
        except KeyboardInterrupt:
            return
        finally:
            door.close()


@click.command("screenshot")
@click.argument("vm_id", type=NAME)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@pass_session
def screenshot(session: Session, vm_id: str, file: Path) -> None:
    """Save what a virtual machine's display shows as PNG into FILE (`-`: the output)."""
    target = output.byte_target(file)
    with session.mica() as mica:
        image = mica.screenshot(vm_id)
    if not isinstance(target, Path):
        target.write(image)
        return
    try:
        target.write_bytes(image)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    say(session, f"the screen of VM {vm_id} is in {file}")


@click.command("keys")
@click.argument("vm_id", type=NAME)
@click.argument("keys", nargs=-1)
@click.option("--text", default="", help="Type this after the keys, as on a US keyboard.")
@pass_session
def keys(session: Session, vm_id: str, keys: tuple[str, ...], text: str) -> None:
    """Press KEYS on a virtual machine's keyboard: names or chords such as ctrl-alt-delete."""
    if not keys and not text:
        raise click.UsageError("name keys, or give --text")
    with session.mica() as mica:
        mica.send_keys(vm_id, *keys, text=text)
    say(session, f"VM {vm_id} has got them")


@click.command("nmi")
@click.argument("vm_id", type=NAME)
@pass_session
def nmi(session: Session, vm_id: str) -> None:
    """Send a virtual machine a non-maskable interrupt, to which many guests answer by a dump."""
    with session.mica() as mica:
        mica.inject_nmi(vm_id)
    say(session, f"VM {vm_id} has got it")
