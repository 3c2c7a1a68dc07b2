"""What `mica … show` and the like say of an object, against what the host answers.

Each field of the answer is changed once, and the output must change with it. What a command leaves
out on purpose is listed here: a new field is shown, or gets its line.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from click.testing import CliRunner

from remote_api.client.cli import main
from remote_api.client.cli.session import Session
from remote_api.schema import Host
from vmkernel.model import Datastore, Disk, Operation, Snapshot, Token, Vm, Volume

Path = tuple[str, ...]


def _bare(kind: Any) -> Any:
    """The type without its annotations, and of a choice the first that is something."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(
                each for each in get_args(kind) if each not in (type(None), msgspec.UnsetType)
            )
        else:
            return kind


@dataclass(frozen=True)
class _Style:
    """How an object is filled."""

    flags: bool
    sparse: bool
    """Only what must be there, and what leads to the field."""

    def made(self, kind: Any, field: Path, *, other: bool, at: Path = ()) -> Any:
        """An object; the `other` one differs from it in that field alone."""
        empty = _empty(kind)
        if self.sparse and empty is not _FILLED and field[: len(at)] != at:
            return empty
        kind = _bare(kind)
        here = other and at == field
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            hints = get_type_hints(kind, include_extras=True)
            return kind(
                **{
                    name: self.made(hints[name], field, other=other, at=(*at, name))
                    for name in kind.__struct_fields__
                }
            )
        if get_origin(kind) in (tuple, list):
            return (self.made(get_args(kind)[0], field, other=other, at=(*at, "-")),)
        if get_origin(kind) is dict:
            return {"key": self.made(get_args(kind)[1], field, other=other, at=(*at, "-"))}
        if kind is bool:
            return self.flags != here
        if isinstance(kind, type) and issubclass(kind, Enum):
            return list(kind)[-1 if here else 0]
        if kind is int:
            return (3 if here else 2) << 30
        return 2.5 + here if kind is float else "-".join(at) + "-x" * here


_FILLED = object()
STYLES = [_Style(flags, sparse) for flags in (False, True) for sparse in (False, True)]


def _empty(kind: Any) -> Any:
    """What stands for nothing; _FILLED for what must be there."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        nothing = {type(None): None, msgspec.UnsetType: msgspec.UNSET}
        return next((nothing[each] for each in get_args(kind) if each in nothing), _FILLED)
    return {tuple: (), dict: {}}.get(get_origin(kind), _FILLED)


def _leaves(kind: Any, at: Path = ()) -> Iterator[Path]:
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name in kind.__struct_fields__:
                yield from _leaves(hint, (*at, name))
    elif get_origin(kind) in (tuple, list, dict):
        yield from _leaves(get_args(kind)[-1 if get_origin(kind) is dict else 0], (*at, "-"))
    else:
        yield at


class _Mica:
    """A host that answers everything with the same."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def __getattr__(self, _: str) -> Callable[..., object]:
        return lambda *_, **__: self._answer

    def disks(self) -> list[object]:
        return [self._answer]


def _shown(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], answer: object) -> str:
    @contextmanager
    def mica(_: Session) -> Iterator[_Mica]:
        yield _Mica(answer)

    monkeypatch.setattr(Session, "mica", mica)
    result = CliRunner().invoke(main, list(words), catch_exceptions=False)
    return result.stdout


COMMANDS: dict[tuple[str, ...], tuple[Any, str, set[str]]] = {
    ("volume", "check", "v"): (Volume, "status.last_check", set()),
    ("volume", "show", "v"): (Volume, "", set()),
    ("snapshot", "show", "v", "s"): (Snapshot, "", {"vm"}),
    ("datastore", "show", "d"): (
        Datastore,
        "",
        # What was asked for; what there is, is shown.
        {"spec.filesystem", "spec.raid_level"}
        | {"spec.nfs.mount_port", "spec.nfs.port", "spec.nfs.version"},
    ),
    ("disk", "show", "id"): (Disk, "", set()),
    ("operation", "show", "o"): (
        Operation,
        "",
        # The code says what the type and the title say; of a field, the detail says it all.
        {"error.title", "error.type"} | {"error.errors.-.code", "error.errors.-.parameters.-"},
    ),
    ("token", "whoami"): (Token, "", set()),
    ("host", "show"): (
        Host,
        "",
        # For programs: lists of the kernel's own words, and figures that `mica host stats` has.
        {"status.boot.secure_boot", "status.boot.timings_s.-", "status.boot.uptime_s"}
        | {"status.security.cpu_mitigations.-", "status.security.security_modules.-"}
        | {"status.security.smt", "status.links.-.driver", "status.stick.read_bytes"},
    ),
    ("vm", "show", "v"): (
        Vm,
        "status",
        # The spec has the cards; of the agent, what identifies the guest is shown.
        {"status.nics.-.key", "status.nics.-.mac", "status.nics.-.port_group"}
        | {"status.nics.-.tap", "status.memory_image.accelerator", "status.agent.checked_at"}
        | {"status.agent.interfaces.-.mac", "status.agent.interfaces.-.name"}
        | {"status.agent.system.id"},
    ),
}


@pytest.mark.parametrize("words", COMMANDS)
def test_every_field_is_shown_or_left_out_on_purpose(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, below, left_out = COMMANDS[words]
    prefix = tuple(below.split(".")) if below else ()

    def seen(style: _Style, field: Path) -> bool:
        plain, other = (style.made(kind, field, other=other) for other in (False, True))
        return _shown(monkeypatch, words, plain) != _shown(monkeypatch, words, other)

    silent = {
        ".".join(leaf)
        for leaf in _leaves(kind)
        if leaf[: len(prefix)] == prefix and not any(seen(style, leaf) for style in STYLES)
    }
    assert silent == left_out, " ".join(sorted(silent ^ left_out))
