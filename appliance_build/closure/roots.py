"""Roots: what the image is made from, as TOML data, each entry with its reason.

Every ``*.toml`` of the roots directory is read and all are taken together. A file holds
arrays of tables, all optional::

    [[executable]]     path                                  a program (or library)
    [[data]]           glob, exclude=[], optional=false      files; recognised by content
    [[unit]]           name, wanted_by=[], required_by=[]    a systemd unit and its enablement
    [[python]]         module, submodules=true, exclude=[]   a module or a package
    [[python_hidden]]  importer, modules                     imports no reading can see
    [[python_waiver]]  module, importer=None                 an import that is cut
    [[kernel_module]]  name                                  a module no bundle names
    [[directory]]      path, mode="0755"                     a directory of its own
    [[link]]           path, target                          a symbolic link
    [[mode]]           path, mode                            a mode git can't keep
    [[dlopen]]         library, take, importer=None          policy for ``.note.dlopen``
    [[waive_unit]]     name                                  a unit others want, not shipped
    [[waive_program]]  path, importer                        a program a unit or rule names
    [[exclude]]        glob                                  nothing may bring this in

Every table also needs ``reason``. Unknown tables and fields are refused.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from appliance_build.closure.errors import RootsError

__all__ = [
    "DataRoot",
    "DirectoryRoot",
    "DlopenPolicy",
    "ExcludeRule",
    "ExecutableRoot",
    "KernelModuleRoot",
    "LinkRoot",
    "ModeRule",
    "PythonHidden",
    "PythonRoot",
    "PythonWaiver",
    "Roots",
    "UnitRoot",
    "WaiveProgram",
    "WaiveUnit",
    "load_roots",
]

Text = Annotated[str, msgspec.Meta(min_length=1)]
ImagePath = Annotated[str, msgspec.Meta(pattern=r"^/[^\s]*$")]
OctalMode = Annotated[str, msgspec.Meta(pattern=r"^0[0-7]{3}$|^1777$")]


class _Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    reason: Text


class ExecutableRoot(_Root, frozen=True):
    """A program or library that must be there."""

    path: ImagePath


class DataRoot(_Root, frozen=True):
    """Files by glob pattern; at least one must match unless `optional`."""

    glob: ImagePath
    exclude: tuple[str, ...] = ()
    optional: bool = False


class UnitRoot(_Root, frozen=True):
    """A systemd unit, and the units whose ``.wants/`` and ``.requires/`` shall name it."""

    name: Text
    wanted_by: tuple[str, ...] = ()
    required_by: tuple[str, ...] = ()


class PythonRoot(_Root, frozen=True):
    """A Python module; of a package all submodules unless the entry says otherwise."""

    module: Text
    submodules: bool = True
    exclude: tuple[str, ...] = ()


class PythonHidden(_Root, frozen=True):
    """Modules that `importer` imports in a way static reading can't see."""

    importer: Text
    modules: tuple[str, ...]


class PythonWaiver(_Root, frozen=True):
    """A module (and all below it) whose imports are not followed."""

    module: Text
    importer: str | None = None


class KernelModuleRoot(_Root, frozen=True):
    """A kernel module beyond the driver bundles'."""

    name: Text


class DirectoryRoot(_Root, frozen=True):
    """A directory that must be there, such as a mount point."""

    path: ImagePath
    mode: OctalMode = "0755"


class LinkRoot(_Root, frozen=True):
    """A symbolic link of our own."""

    path: ImagePath
    target: Text


class ModeRule(_Root, frozen=True):
    """The mode of one path, if 0644 (0755 for executables) is not right."""

    path: ImagePath
    mode: OctalMode


class DlopenPolicy(_Root, frozen=True):
    """Whether a library named by a ``.note.dlopen`` note is taken."""

    library: Text
    take: bool
    importer: str | None = None


class WaiveUnit(_Root, frozen=True):
    """A unit that others want and the image does without."""

    name: Text


class WaiveProgram(_Root, frozen=True):
    """A program that a unit or udev rule names and the image does without."""

    path: ImagePath
    importer: Text


class ExcludeRule(_Root, frozen=True):
    """Paths that nothing may bring in."""

    glob: ImagePath


class _RootsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    executable: tuple[ExecutableRoot, ...] = ()
    data: tuple[DataRoot, ...] = ()
    unit: tuple[UnitRoot, ...] = ()
    python: tuple[PythonRoot, ...] = ()
    python_hidden: tuple[PythonHidden, ...] = ()
    python_waiver: tuple[PythonWaiver, ...] = ()
    kernel_module: tuple[KernelModuleRoot, ...] = ()
    directory: tuple[DirectoryRoot, ...] = ()
    link: tuple[LinkRoot, ...] = ()
    mode: tuple[ModeRule, ...] = ()
    dlopen: tuple[DlopenPolicy, ...] = ()
    waive_unit: tuple[WaiveUnit, ...] = ()
    waive_program: tuple[WaiveProgram, ...] = ()
    exclude: tuple[ExcludeRule, ...] = ()


class Roots(_RootsFile, frozen=True):
    """All roots files together; `where` is the file of an entry."""

    where: dict[int, str] = msgspec.field(default_factory=dict)

    def origin(self, entry: _Root) -> str:
        """The file of an entry, for its reason."""
        return self.where.get(id(entry), "roots")


def load_roots(directory: Path) -> Roots:
    """Read every ``*.toml`` of `directory`, in the order of their names."""
    files = sorted(directory.glob("*.toml"))
    if not files:
        raise RootsError(f"{directory}: holds no *.toml file")
    parts: list[_RootsFile] = []
    where: dict[int, str] = {}
    for file in files:
        part = _load(file)
        parts.append(part)
        for name in _RootsFile.__struct_fields__:
            for entry in getattr(part, name):
                where[id(entry)] = file.name
    merged = {
        name: tuple(entry for part in parts for entry in getattr(part, name))
        for name in _RootsFile.__struct_fields__
    }
    return Roots(**merged, where=where)


def _load(file: Path) -> _RootsFile:
    try:
        return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _RootsFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RootsError(f"{file.name}: {error}") from error
