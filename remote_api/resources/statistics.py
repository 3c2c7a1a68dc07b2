"""What virtual machines and the host use: as JSON, and all of it as Prometheus' text."""

from __future__ import annotations

from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.routing import AnyRoute, NoBody, Reply, Route
from remote_api.schema import NoQuery
from vmkernel.control.requests import GetAllStatistics, GetHostStatistics, GetVmStatistics
from vmkernel.model import ErrorCode, HostStatistics, VmStatistics

__all__ = ["ROUTES"]

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def get_vm_statistics(exchange: Exchange[NoQuery, NoBody]) -> Response:
    figures = await exchange.call(GetVmStatistics(id=exchange.id))
    return json_response(figures)


async def get_host_statistics(exchange: Exchange[NoQuery, NoBody]) -> Response:
    figures = await exchange.call(GetHostStatistics())
    return json_response(figures)


async def get_metrics(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """The host and all virtual machines."""
    from remote_api.resources.metrics import render

    figures = await exchange.call(GetAllStatistics())
    count = exchange.state.connections
    body = render(figures, None if count is None else count())
    return Response(status=200, body=body, media_type=_PROMETHEUS)


ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/vms/{id}/stats",
        name="getVmStatistics",
        summary="CPU, memory, disk and network use of a virtual machine",
        handler=get_vm_statistics,
        replies=(Reply(status=200, description="The statistics.", body=VmStatistics),),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.CONFLICT),
    ),
    Route(
        method="GET",
        path="/v1/host/stats",
        name="getHostStatistics",
        summary="CPU, memory, disk, network and datastore use of the host",
        handler=get_host_statistics,
        replies=(Reply(status=200, description="The statistics.", body=HostStatistics),),
    ),
    Route(
        method="GET",
        path="/metrics",
        name="getMetrics",
        tag="host",
        summary="Statistics of the host and of all virtual machines, in Prometheus' text format",
        handler=get_metrics,
        replies=(
            Reply(
                status=200,
                description="Prometheus' text format, version 0.0.4.",
                body=str,
                media_type="text/plain",
            ),
        ),
    ),
)
