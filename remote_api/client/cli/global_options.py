"""The options of all commands, which are taken before and after every sub-command's name."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from remote_api.client.cli.completing import context_names
from remote_api.client.cli.given import given_globally

__all__ = ["FORMATS", "accept_everywhere", "global_options"]

FORMATS = ("table", "wide", "json", "yaml", "name")
_IN_SHORT = "Options of all commands: --host, -o/--output, --timeout, -q/--quiet, --debug; see \
`mica --help`."


class _GlobalOption(click.Option):
    """An option of the root that every command takes; its help is the root's."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its line of help, in `mica --help` alone."""
        return super().get_help_record(ctx) if ctx.parent is None else None


def global_options() -> list[click.Parameter]:
    """The options, made again for each command."""
    return [
        _option(
            "--host",
            "host_name",
            metavar="NAME",
            shell_complete=context_names,
            help="Use this context; see `mica context list`.",
        ),
        _option(
            "-o",
            "--output",
            type=click.Choice(FORMATS),
            help="Output format (default: table). `wide` is the table with all columns, `name` the"
            " names alone.",
        ),
        _option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=1),
            metavar="SECONDS",
            help="Time limit for each answer of the host (default: 60).",
        ),
        _option(
            "-q",
            "--quiet",
            is_flag=True,
            default=None,
            help="Suppress progress and status messages.",
        ),
        _option(
            "--debug",
            is_flag=True,
            default=None,
            help="Show each HTTP call on the error output, without tokens and bodies.",
        ),
    ]


def accept_everywhere(command: click.Command) -> None:
    """Let every command below take the options."""
    if not isinstance(command, click.Group):
        return
    for below in command.commands.values():
        mine = {name for option in below.params for name in option.opts}
        below.params += [each for each in global_options() if not mine & set(each.opts)]
        below.epilog = f"{below.epilog} {_IN_SHORT}" if below.epilog else _IN_SHORT
        accept_everywhere(below)


def _option(*declarations: str, **attributes: Any) -> click.Parameter:
    return _GlobalOption(declarations, expose_value=False, callback=_keep, **attributes)


def _keep(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """The last one given holds; the Session is there once the root has run."""
    name = option.name or ""
    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        given_globally(context)[name] = value
        if context.obj is not None:
            setattr(context.obj, name, value)
    return value
