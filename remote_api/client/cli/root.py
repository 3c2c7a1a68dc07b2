"""The command's root: options of all commands, and errors in one line."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

import click

from remote_api.client.cli import commands, output
from remote_api.client.cli.given import given_globally
from remote_api.client.cli.global_options import accept_everywhere, global_options
from remote_api.client.cli.registry import commands_in
from remote_api.client.cli.session import Session
from remote_api.client.cli.words import in_words_of_the_command
from remote_api.client.errors import ClientError, MisuseError, UnreachableError, UntrustedError
from remote_api.client.hosted.supervisor import ChildFailedError
from vmkernel.version import __version__

__all__ = ["main"]

_EPILOG = (
    "Exit status: 0 success; 1 refused or failed; 2 invalid command line; 3 host unreachable or"
    " timed out; 4 certificate does not match the pinned fingerprint; 130 interrupted."
    " Set MICA_HOST, MICA_TOKEN and MICA_FINGERPRINT to use a host without a context."
)


class _Root(click.Group):
    """The command itself: ends the process with a status that says what happened."""

    def main(self, *arguments: Any, **named: Any) -> NoReturn:
        """Run the command line and end the process."""
        named["standalone_mode"] = False
        sys.exit(self._run(*arguments, **named))

    def _run(self, *arguments: Any, **named: Any) -> int:
        try:
            result = super().main(*arguments, **named)
            output.flush()
        except click.Abort as abort:
            if isinstance(abort.__context__, EOFError):
                output.print_line(
                    "mica: the input ended before an answer was given; see --help", err=True
                )
                return 2
            output.print_line("mica: interrupted", err=True)
            return 130
        except click.UsageError as error:
            told = io.StringIO()
            error.show(told)
            output.print_paragraph(told.getvalue().rstrip("\n"), err=True)
            return error.exit_code
        except click.ClickException as error:  # a file, for instance
            output.print_line(f"mica: {error.format_message()}", err=True)
            return error.exit_code
        except UntrustedError as error:
            return _fail(error, 4)
        except UnreachableError as error:
            return _fail(error, 3)
        except MisuseError as error:
            return _fail(error, 2)
        except ClientError as error:
            return _fail(error, 1)
        except OSError as error:
            # click itself ends the process if a reader of its output has had enough. What Python
            # still holds for the output would fail again, and be told again, at its exit.
            output.end()
            output.print_line(
                f"mica: {error.strerror or error}: {error.filename or 'output'}", err=True
            )
            return 1
        return result if isinstance(result, int) else 0


@click.group(cls=_Root, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mica", help="Show the version and exit.")
@click.pass_context
def main(context: click.Context) -> None:
    """Manage Mica hosts and their virtual machines."""
    context.obj = Session(**given_globally(context))


main.params[:0] = global_options()
for _command in commands_in(commands.__name__):
    main.add_command(_command)
accept_everywhere(main)


def _fail(error: ClientError, status: int) -> int:
    show = output.print_paragraph if isinstance(error, ChildFailedError) else output.print_line
    show(f"mica: {in_words_of_the_command(str(error))}", err=True)
    return status
