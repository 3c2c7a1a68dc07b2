"""`mica console` and `mica vnc`."""

from __future__ import annotations

import sys
import threading

import click

from remote_api.client.cli import output
from remote_api.client.cli.session import Session, pass_session
from remote_api.client.cli.verbs import vm_argument
from vmkernel.model import ConsoleMode, ConsoleNotice, VmState

__all__ = ["COMMANDS", "console", "vnc"]

_WITH_SCREEN = frozenset({VmState.STARTING, VmState.RUNNING, VmState.PAUSED, VmState.STOPPING})


@click.command("console")
@vm_argument
@click.option(
    "--watch",
    "mode",
    flag_value=ConsoleMode.WATCH.value,
    help="Watch only; what you type is not sent.",
)
@click.option(
    "--takeover",
    "mode",
    flag_value=ConsoleMode.TAKEOVER.value,
    help="Take over input; the current writer becomes read-only.",
)
@pass_session
def console(session: Session, vm_id: str, mode: str | None) -> None:
    """Connect to a VM's serial console. Leave with Ctrl-].

    Many users can watch a console and one can write: the first, until that user leaves or another
    one takes over with --takeover.
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
            output.print_line(
                f"connected to the console of VM {vm_id}; leave with Ctrl-]", err=True
            )
        reason = interact(socket, on_notice=notice)
    if not session.quiet:
        output.print_paragraph(f"\nconsole of VM {vm_id}: {reason}", err=True)


def _tell(vm_id: str, now: ConsoleNotice, asked: ConsoleMode, *, first: bool) -> None:
    if now.stalled:
        text = "the guest takes no input; what you type is lost until it does"
    elif now.writer or asked is ConsoleMode.WATCH:
        text = "" if first else "you can type now" if now.writer else ""
    elif now.holder is not None:
        text = (
            f"read-only: {now.holder} is writing; take over with `mica console {vm_id} --takeover`"
        )
    else:
        text = "no user is writing; type to take over input"
    if text:
        output.print_in_raw_terminal(f"[{text}]")


@click.command("vnc")
@vm_argument
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Local port (default: any free one).",
)
@click.option(
    "--viewer",
    metavar="CMD",
    help="Start this viewer, and exit when it exits. {port}, {display} (PORT-5900) and {uri} in CMD"
    " are replaced; without them the address is appended.",
)
@pass_session
def vnc(session: Session, vm_id: str, port: int, viewer: str | None) -> None:
    """Open a local port for VNC viewers of a VM's screen.

    The port is open until Ctrl-C. Viewers can disconnect and reconnect. All users of this
    computer can reach the port.
    """
    from remote_api.client.consoles.vnc import VncPort, started_viewer, viewer_words

    with session.mica() as mica:
        state = mica.vm(vm_id).status.state
        if state not in _WITH_SCREEN and not session.quiet:
            output.print_line(
                f"VM {vm_id} is {state}; viewers can connect when it is running", err=True
            )
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
