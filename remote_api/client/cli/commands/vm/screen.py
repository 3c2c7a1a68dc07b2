"""Console, screen and keyboard of a virtual machine."""

from __future__ import annotations

from pathlib import Path

import click

from remote_api.client.cli import output
from remote_api.client.cli.commands.console import console, vnc
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import Session, pass_session, say

__all__ = ["COMMANDS"]


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


COMMANDS = (console, vnc, screenshot, keys, nmi)
