"""One device at a time: what is sent, and that nobody else's change is lost."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from remote_api.client.cli.commands.vm.devices import change_vm, with_image
from remote_api.client.errors import ConflictError, RefusedError
from remote_api.client.sdk import Mica
from remote_api.schema import Problem
from tests.unit.remote_api.samples import vm
from vmkernel.model import CdromSpec, DiskSpec, Vm

CHANGED = Problem(
    type="/v1/problems/revision-mismatch",
    code="revision-mismatch",
    title="t",
    status=412,
    detail="d",
    instance="i",
)


class Raced:
    """A host whose VM somebody else changes between each of our reads and writes."""

    def __init__(self, races: int) -> None:
        self.races = races
        self.vm_now = vm()
        self.sent: list[tuple[dict[str, Any], int]] = []

    def vm(self, _: str) -> Vm:
        """The VM as it is."""
        return self.vm_now

    def patch_vm(self, _: str, patch: dict[str, Any], *, revision: int) -> Vm:
        """Refuse what is about an older one."""
        self.sent.append((patch, revision))
        if self.races:
            self.races -= 1
            theirs = DiskSpec(volume=f"theirs-{self.races}")
            spec = msgspec.structs.replace(
                self.vm_now.spec, disks=(*self.vm_now.spec.disks, theirs)
            )
            revision = self.vm_now.revision + 1
            self.vm_now = msgspec.structs.replace(self.vm_now, spec=spec, revision=revision)
            raise RefusedError(CHANGED)
        return self.vm_now


def test_a_change_begins_again_where_somebody_was_quicker() -> None:
    host = Raced(races=2)
    change_vm(
        cast(Mica, host), "web", lambda spec: {"disks": (*spec.disks, DiskSpec(volume="mine"))}
    )
    assert [revision for _, revision in host.sent] == [3, 4, 5]
    volumes = [disk["volume"] for disk in host.sent[-1][0]["disks"]]
    assert volumes[-3:] == ["theirs-1", "theirs-0", "mine"]


def test_a_change_gives_up() -> None:
    with pytest.raises(RefusedError):
        change_vm(cast(Mica, Raced(races=100)), "web", lambda spec: {"nics": spec.nics})


FULL = CdromSpec(key="cdrom0", image="a")
OTHER = CdromSpec(key="cdrom1", image="b")
EMPTY = CdromSpec(key="cdrom2")


@pytest.mark.parametrize(
    ("drives", "asked", "images"),
    [
        ((FULL,), None, ["new"]),
        ((FULL, EMPTY), None, ["a", "new"]),
        ((FULL, EMPTY, OTHER), "cdrom1", ["a", None, "new"]),
    ],
)
def test_drives(drives: tuple[CdromSpec, ...], asked: str | None, images: list[str]) -> None:
    empty = [drive for drive in drives if drive.image is None]
    changed = with_image("web", drives, asked, empty or drives, "new")
    assert [drive.image for drive in changed] == images


@pytest.mark.parametrize(
    ("drives", "asked", "told"),
    [((FULL, OTHER), None, "--drive"), ((FULL,), "cdrom7", "it has: cdrom0 a")],
)
def test_drives_that_are_not_clear(
    drives: tuple[CdromSpec, ...], asked: str | None, told: str
) -> None:
    with pytest.raises(ConflictError, match=told):
        with_image("web", drives, asked, drives, None)
