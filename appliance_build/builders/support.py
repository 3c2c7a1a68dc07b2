"""What the builders share: functions as actions, folders as sources, targets with a help line."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from appliance_build.inputs.cache import tree_is_sound
from appliance_build.progress import say

__all__ = [
    "HELP",
    "action",
    "describe",
    "files_under",
    "forget_unsound",
    "forget_without",
    "help_text",
    "phony",
    "tree_of",
]

HELP: list[tuple[str, str]] = []
"""The targets with their explanation, in the order of `scons -h`."""

SKIPPED = {"__pycache__", ".mypy_cache", ".ruff_cache"}

PLAIN_ERRORS = (
    "InputError",
    "ClosureError",
    "BundleError",
    "BuildError",
    "OSError",
    "ValueError",
)
"""Errors, by a base class's name, whose message says enough without a traceback."""


def _files(nodes: Sequence[Any]) -> list[Path]:
    """Return the nodes that are files: not a Value, not an Alias."""
    return [Path(node.abspath) for node in nodes if hasattr(node, "abspath")]


def action(env: Any, text: str, work: Callable[[list[Path], list[Path]], None]) -> Any:
    """Return a SCons action that calls ``work(targets, sources)`` with absolute paths."""

    def run(target: Sequence[Any], source: Sequence[Any], env: Any) -> int:
        del env
        try:
            work(_files(target), _files(source))
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            names = {base.__name__ for base in type(error).__mro__}
            if names.isdisjoint(PLAIN_ERRORS) and not isinstance(
                error, subprocess.CalledProcessError
            ):
                raise
            for path in _files(target):
                path.unlink(missing_ok=True)
            say(f"{text}: {error}")
            return 1
        return 0

    run.__name__ = f"build_{text.split()[0]}"
    return env.Action(run, f"mica: {text}")


def files_under(*folders: Path, suffixes: tuple[str, ...] = ()) -> list[str]:
    """Return every file of some folders, sorted; byte code and tools' caches left out."""

    def walk(folder: Path) -> Iterator[str]:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                if path.name not in SKIPPED:
                    yield from walk(path)
            elif path.suffix != ".pyc" and (not suffixes or path.suffix in suffixes):
                yield str(path)

    return [name for folder in folders if folder.is_dir() for name in walk(folder)]


def tree_of(path_file: Path) -> Path:
    """Return the tree that a ``*.path`` file names."""
    return Path(path_file.read_text().strip())


def forget_unsound(path_file: Path) -> None:
    """Make SCons build a cached tree again if it is gone or damaged."""
    if path_file.is_file() and not tree_is_sound(tree_of(path_file)):
        path_file.unlink()


def forget_without(path: Path, companion: Path) -> None:
    """Make SCons build a file again whose companion folder is gone."""
    if path.is_file() and not companion.is_dir():
        path.unlink()


def phony(env: Any, name: str, sources: Sequence[Any], work: Any, *, text: str) -> Any:
    """Define a target that is not a file and is always done."""
    target = env.Alias(name, sources, work)
    env.AlwaysBuild(target)
    describe(name, text)
    return target


def describe(name: str, text: str) -> None:
    """Put a target into `scons -h`."""
    HELP.append((name, text))


def help_text() -> str:
    """Return what `scons -h` shows."""
    width = max(len(name) for name, _ in HELP) + 2
    lines = [f"  scons {name.ljust(width)}{text}" for name, text in HELP]
    return "\n".join(
        ["", "Mica's targets:", *lines, "", "  BUILD=folder puts what is built elsewhere.", ""]
    )
