"""What the physical console shows; it takes no input and must not touch anything else."""

from vmkernel.console.board import BoardSources, StatusBoard
from vmkernel.console.console import Console
from vmkernel.console.view import StatusView, screen_lines, serial_lines

__all__ = [
    "BoardSources",
    "Console",
    "StatusBoard",
    "StatusView",
    "screen_lines",
    "serial_lines",
]
