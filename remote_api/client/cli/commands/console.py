"""`mica console` and `mica vnc`."""

from __future__ import annotations

import sys
import threading

import click

from remote_api.client.cli import output
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import Session, pass_session
from vmkernel.model import ConsoleMode, ConsoleNotice, VmState

__all__ = ["COMMANDS", "console", "vnc"]

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
    from remote_api.client.consoles.terminal import interact
    from remote_api.client.consoles.websocket import open_console

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
    from remote_api.client.consoles.vnc import VncPort, started_viewer, viewer_words

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


COMMANDS = (console, vnc)
