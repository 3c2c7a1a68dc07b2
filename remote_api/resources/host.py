"""The host: public information, status, devices and power."""

from __future__ import annotations

from msgspec import structs

from remote_api.auth import bearer_token
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    CAPABILITIES,
    Host,
    ListParameters,
    NoQuery,
    PageOf,
    PowerBody,
    WaitQuery,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.control.requests import WhoAmI
from vmkernel.model import (
    DEVICE_LISTING,
    ApiInfo,
    Device,
    ErrorCode,
    HostCertificate,
    MicaError,
    Role,
)

__all__ = ["ROUTES", "TAGS"]


async def get_api(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """What this host is: strangers learn no more than they need to claim it."""
    authorization = exchange.headers.get(b"authorization")
    if authorization:
        exchange.token = bearer_token(authorization)
        await exchange.call(WhoAmI())
    info = await exchange.call(requests.GetApiInfo())
    if not authorization:
        info = ApiInfo(product=info.product, api_version=info.api_version, claimed=info.claimed)
    else:
        requests_taken = info.capabilities or ()
        info = structs.replace(info, capabilities=(*sorted(CAPABILITIES), *requests_taken))
    return json_response(info)


async def get_openapi(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """The OpenAPI document of this API."""
    await exchange.call(WhoAmI())
    body = exchange.state.openapi.read_bytes()
    return Response(status=200, body=body, media_type="application/json")


async def get_host(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """The host as a whole."""
    return json_response(Host(status=await exchange.call(requests.GetHost())))


async def list_devices(exchange: Exchange[ListParameters, NoBody]) -> Response:
    """The host's PCI and USB devices."""
    return await answer_list(exchange, requests.ListDevices)


async def rotate_certificate(exchange: Exchange[NoQuery, NoBody]) -> Response:
    """Replace the API's key and certificate."""
    try:
        certificate = await exchange.call(requests.RotateCertificate())
    except MicaError as error:
        if error.problem.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMED_OUT):
            await _renew(exchange)  # it may have been done
        raise
    await _renew(exchange)
    return json_response(certificate)


async def _renew(exchange: Exchange[NoQuery, NoBody]) -> None:
    renew = exchange.state.renew_identity
    if renew is not None:
        await renew()


async def power_host(exchange: Exchange[WaitQuery, PowerBody]) -> Response:
    """Stop the guests in order, then power off or reboot the host."""
    operation = await exchange.call(requests.PowerHost(action=exchange.body.action))
    return await accepted(exchange, operation, exchange.query.wait)


TAGS = {"host": "The machine that Mica runs on."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1",
        name="getApi",
        tag="host",
        summary="The product, and whether it is claimed; with a token, its version and "
        "capabilities",
        handler=get_api,
        role=None,
        replies=(Reply(status=200, description="Information about the host.", body=ApiInfo),),
        problems=(ErrorCode.UNAUTHENTICATED,),
    ),
    Route(
        method="GET",
        path="/v1/openapi.json",
        name="getOpenapi",
        tag="host",
        summary="This document",
        details="For generators of clients.",
        handler=get_openapi,
        replies=(Reply(status=200, description="OpenAPI 3.1.", body=dict),),
    ),
    Route(
        method="GET",
        path="/v1/host",
        name="getHost",
        summary="The host: identity, hardware, boot, stick, links, findings",
        handler=get_host,
        replies=(Reply(status=200, description="The host.", body=Host),),
    ),
    Route(
        method="GET",
        path="/v1/host/devices",
        name="listHostDevices",
        summary="Physical PCI and USB devices, with driver and bundle, or what is wrong",
        handler=list_devices,
        query=list_parameters(DEVICE_LISTING),
        replies=(Reply(status=200, description="A page of devices.", body=PageOf[Device]),),
    ),
    Route(
        method="POST",
        path="/v1/host/certificate/rotate",
        name="rotateCertificate",
        dry_run=False,
        summary="Replace the API's key and certificate; the response still uses the old one, then"
        " its connections end",
        handler=rotate_certificate,
        role=Role.ADMIN,
        replies=(Reply(status=200, description="The new certificate.", body=HostCertificate),),
    ),
    Route(
        method="POST",
        path="/v1/host/power",
        name="powerHost",
        summary="Stop the guests in order, then power off or reboot the host",
        handler=power_host,
        role=Role.ADMIN,
        query=WaitQuery,
        body=PowerBody,
        body_kind=BodyKind.JSON,
        examples={"reboot": {"action": "reboot"}},
        replies=STARTED,
        problems=(ErrorCode.CONFLICT, ErrorCode.UNSUPPORTED),
    ),
)
