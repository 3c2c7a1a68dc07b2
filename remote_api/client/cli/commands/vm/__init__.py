"""The `mica vm` commands, one module for each group of verbs."""

from __future__ import annotations

import click

from remote_api.client.cli.registry import commands_in

__all__ = ["COMMANDS", "vm_group"]


@click.group("vm")
def vm_group() -> None:
    """Create, run and change VMs (virtual machines)."""


for _command in commands_in(__name__):
    vm_group.add_command(_command)

COMMANDS = (vm_group,)
