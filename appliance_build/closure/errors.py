"""The closure's error tree.

::

    ClosureError
    ├── RootsError        a roots or bundle file is wrong; names file and field
    ├── NotInDonorError        a file that something needs is in none of the trees
    ├── ExcludedNeededError    a file that something needs is excluded by the roots
    ├── LinkLoopError          a chain of symbolic links does not end
    ├── BadElfError            an ELF file that can't be read
    ├── FirmwareMissingError   a module names firmware that is neither bundled nor waived
    ├── ImportMissingError     one of our own modules imports what isn't there
    └── ToolFailedError        an outside tool (depmod, python) failed
"""

from __future__ import annotations

__all__ = [
    "BadElfError",
    "ClosureError",
    "ExcludedNeededError",
    "FirmwareMissingError",
    "ImportMissingError",
    "LinkLoopError",
    "NotInDonorError",
    "RootsError",
    "ToolFailedError",
]


class ClosureError(Exception):
    """The allow-list can't be computed or written; the message says what to change."""


class RootsError(ClosureError):
    """A roots or bundle file is wrong: the message names the file and the field."""


class NotInDonorError(ClosureError):
    """A needed file is in none of the input trees."""


class ExcludedNeededError(ClosureError):
    """A needed file is excluded."""


class LinkLoopError(ClosureError):
    """A chain of symbolic links does not end."""


class BadElfError(ClosureError):
    """An ELF file can't be read."""


class FirmwareMissingError(ClosureError):
    """A module's firmware is neither bundled nor waived."""


class ImportMissingError(ClosureError):
    """One of our own modules imports a module that isn't there."""


class ToolFailedError(ClosureError):
    """An outside tool failed."""
