"""What the physical console shows; it takes no input and must not touch anything else."""

from vmkernel.status_screen.board import BoardSources, StatusBoard
from vmkernel.status_screen.terminals import Console
from vmkernel.status_screen.view import StatusView, screen_lines, serial_lines

__all__ = [
    "BoardSources",
    "Console",
    "StatusBoard",
    "StatusView",
    "screen_lines",
    "serial_lines",
]
