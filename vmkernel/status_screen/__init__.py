"""What the physical console shows; it takes no input and must not touch anything else."""

from vmkernel.status_screen.board import BoardSources, StatusBoard
from vmkernel.status_screen.terminals import Terminals
from vmkernel.status_screen.view import StatusView, screen_lines, serial_lines

__all__ = [
    "BoardSources",
    "StatusBoard",
    "StatusView",
    "Terminals",
    "screen_lines",
    "serial_lines",
]
