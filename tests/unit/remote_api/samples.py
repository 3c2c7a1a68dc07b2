"""Objects that the fake vmkernel answers with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from remote_api.http.application import Application
from remote_api.resources.table import make_application
from tests.framework.fake_vmkernel import FakeVmkernel, fake_vmkernel
from vmkernel import model

__all__ = ["JSON", "MERGE_PATCH", "NOW", "image", "operation", "served", "vm", "volume"]

NOW = "2026-01-01T00:00:00Z"
JSON = {"content-type": "application/json"}
MERGE_PATCH = {"content-type": "application/merge-patch+json"}


def vm(vm_id: str = "web", revision: int = 3, **spec: object) -> model.Vm:
    """A stopped virtual machine."""
    return model.Vm(
        id=vm_id,
        revision=revision,
        created_at=NOW,
        spec=model.VmSpec(datastore="main", **spec),  # type: ignore[arg-type]
        status=model.VmStatus(
            state=model.VmState.STOPPED,
            uuid="6f0f3c1e-0000-4000-8000-000000000001",
            machine_type="pc-q35-10.0",
        ),
    )


def volume(size_bytes: int = 1 << 30, revision: int = 2) -> model.Volume:
    """A volume."""
    return model.Volume(
        id="data",
        revision=revision,
        created_at=NOW,
        spec=model.VolumeSpec(datastore="main", size_bytes=size_bytes),
        status=model.VolumeStatus(allocated_bytes=4096),
    )


def image(image_id: str = "iso-1") -> model.Image:
    """An image."""
    return model.Image(
        id=image_id,
        created_at=NOW,
        spec=model.ImageSpec(
            datastore="main", format=model.ImageFormat.ISO, size_bytes=10, sha256="0" * 64
        ),
        status=model.ImageStatus(virtual_size_bytes=10),
    )


def operation(
    state: model.OperationState = model.OperationState.RUNNING,
    error: model.ErrorInfo | None = None,
) -> model.Operation:
    """An operation."""
    return model.Operation(
        id="op-1",
        kind="vm.start",
        subject=model.Subject(kind="vm", id="web"),
        state=state,
        progress=model.Progress(),
        cancellable=True,
        actor="root",
        created_at=NOW,
        finished_at=NOW if state.finished else None,
        error=None if error is None else model.OperationError.of(error),
    )


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[FakeVmkernel, Application]]:
    """The API on a fake vmkernel."""
    async with fake_vmkernel(folder) as fake:
        application = make_application(fake.client)
        try:
            yield fake, application
        finally:
            application.state.tickets.close()
