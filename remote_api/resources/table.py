"""All routes of the API in one table."""

from __future__ import annotations

from pathlib import Path

from remote_api.auth import TicketBox
from remote_api.http.application import Application
from remote_api.http.exchange import ApiState
from remote_api.http.routing import AnyRoute, Registry
from remote_api.resources import (
    access,
    backups,
    clones,
    console,
    datastores,
    disks,
    downloads,
    events,
    host,
    image_sources,
    images,
    operations,
    snapshots,
    statistics,
    uploads,
    vms,
    volumes,
)
from vmkernel.control import ControlClient

__all__ = ["OPENAPI_PATH", "all_routes", "make_application"]

OPENAPI_PATH = Path(__file__).parent.parent / "openapi.json"


def all_routes() -> tuple[AnyRoute, ...]:
    """Every route, in the order of the OpenAPI document."""
    return (
        *host.ROUTES,
        *access.ROUTES,
        *disks.ROUTES,
        *datastores.ROUTES,
        *volumes.ROUTES,
        *images.ROUTES,
        *image_sources.ROUTES,
        *uploads.ROUTES,
        *downloads.ROUTES,
        *vms.ROUTES,
        *backups.ROUTES,
        *console.ROUTES,
        *statistics.ROUTES,
        *clones.ROUTES,
        *snapshots.ROUTES,
        *operations.ROUTES,
        *events.ROUTES,
    )


def make_application(control: ControlClient) -> Application:
    """The API on a way to the vmkernel."""
    state = ApiState(control=control, tickets=TicketBox(), openapi=OPENAPI_PATH)
    return Application(Registry(all_routes()), state)
