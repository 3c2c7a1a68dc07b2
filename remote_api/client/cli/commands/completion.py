"""Completion of the command's words by the shell."""

from __future__ import annotations

import click

from remote_api.client.cli import output

__all__ = ["COMMANDS"]

_VARIABLE = "_MICA_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    To enable completion in new shells:

    \b
    bash: eval "$(mica completion bash)" in ~/.bashrc
    zsh:  eval "$(mica completion zsh)" in ~/.zshrc
    fish: mica completion fish > ~/.config/fish/completions/mica.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    root = click.get_current_context().find_root()
    assert kind is not None
    output.print_paragraph(kind(root.command, {}, "mica", _VARIABLE).source())


COMMANDS = (completion,)
