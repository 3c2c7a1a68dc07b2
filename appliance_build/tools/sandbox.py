"""Run a program of the tools tree.

The tree's ``/usr`` is laid over the host's by mkosi's own sandbox program; the folders a
program reads and writes are bound at their own paths, so that arguments need no translation.
QEMU alone runs without that (:func:`loader_argv`): through the tree's dynamic loader.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance_build.inputs.run import run

__all__ = ["LIBRARIES", "ToolsSandbox", "loader_argv", "qemu_environment"]

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def loader_argv(tree: Path, program: str) -> list[str]:
    """Return the words that start a program of the tree with the tree's own dynamic loader."""
    argv = [
        str(tree / LIBRARIES / "ld-linux-x86-64.so.2"),
        "--library-path",
        f"{tree / LIBRARIES}:{tree / 'usr/lib'}:{tree / LIBRARIES / program}",
        str(tree / "usr/bin" / program),
    ]
    if program.startswith("qemu-system-"):
        for folder in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"):
            argv += ["-L", str(tree / folder)]
    return argv


def qemu_environment(tree: Path) -> dict[str, str]:
    """Return what QEMU's loadable modules need to be found."""
    return {"QEMU_MODULE_DIR": str(tree / LIBRARIES / "qemu")}


class ToolsSandbox:
    """Runs programs of one tools tree, seeing the named folders and nothing of the network."""

    def __init__(
        self,
        tree: Path,
        *,
        system: Path | None = None,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
    ) -> None:
        """`system` is the tree of the programs, if that isn't the tools tree."""
        self.tree = tree
        self._system = system or tree
        self._readable = tuple(path.resolve() for path in readable)
        self._writable = tuple(path.resolve() for path in writable)

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the whole command line for a program."""
        words = [
            sys.executable,
            "-B",
            str(self.tree / "usr/lib/python3/dist-packages/mkosi/sandbox.py"),
            *("--ro-bind", str(self._system / "usr"), "/usr"),
            *("--ro-bind", str(self._system / "etc"), "/etc"),
            *("--symlink", "usr/bin", "/bin"),
            *("--symlink", "usr/sbin", "/sbin"),
            *("--symlink", "usr/lib", "/lib"),
            *("--symlink", "usr/lib64", "/lib64"),
            *("--dev", "/dev"),
            *("--proc", "/proc"),
            *("--tmpfs", "/tmp"),  # noqa: S108
            *("--dir", "/var/tmp"),  # noqa: S108
        ]
        for path in self._readable:
            words += ["--ro-bind", str(path), str(path)]
        for path in self._writable:
            words += ["--bind", str(path), str(path)]
        return [*words, *(str(word) for word in argv)]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        show: bool = False,
    ) -> str:
        """Run a program of the tree and return its output."""
        return run(self.argv(argv), timeout_s=timeout_s, env=env, show=show)
