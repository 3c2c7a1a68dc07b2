"""Console, screen and keyboard of a virtual machine."""

from __future__ import annotations

from pathlib import Path

import click

from remote_api.client.cli import output
from remote_api.client.cli.commands.console import console, vnc
from remote_api.client.cli.session import Session, pass_session, say
from remote_api.client.cli.verbs import vm_argument

__all__ = ["COMMANDS"]


@click.command("screenshot")
@vm_argument
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@pass_session
def screenshot(session: Session, vm_id: str, file: Path) -> None:
    """Save a screenshot as PNG to FILE (`-`: standard output)."""
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
    say(session, f"screenshot of VM {vm_id} saved to {file}")


@click.command("keys")
@vm_argument
@click.argument("keys", nargs=-1, metavar="[KEYS]...")
@click.option("--text", default="", help="Text to type after the keys, as on a US keyboard.")
@pass_session
def keys(session: Session, vm_id: str, keys: tuple[str, ...], text: str) -> None:
    """Press keys on a VM's keyboard.

    KEYS are keys or combinations such as ctrl-alt-delete.
    """
    if not keys and not text:
        raise click.UsageError("nothing to type: give KEYS or --text")
    with session.mica() as mica:
        mica.send_keys(vm_id, *keys, text=text)
    say(session, f"keys sent to VM {vm_id}")


@click.command("nmi")
@vm_argument
@pass_session
def nmi(session: Session, vm_id: str) -> None:
    """Send a non-maskable interrupt (NMI) to a VM.

    Many guests answer it with a crash dump.
    """
    with session.mica() as mica:
        mica.inject_nmi(vm_id)
    say(session, f"NMI sent to VM {vm_id}")


COMMANDS = (console, vnc, screenshot, keys, nmi)
