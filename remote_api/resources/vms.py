"""Virtual machines: create, read, change, delete, act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from remote_api.http.conditions import Matching, expected_revision, mismatch
from remote_api.http.decode import decode_patch
from remote_api.http.exchange import Exchange, Response, json_response
from remote_api.http.lists import answer_list
from remote_api.http.routing import AnyRoute, BodyKind, Condition, NoBody, Reply, Route
from remote_api.resources.operations import STARTED, accepted
from remote_api.schema import (
    ApiError,
    DeleteVmQuery,
    ListParameters,
    NoQuery,
    PageOf,
    ProblemCode,
    ShutdownQuery,
    VmBody,
    WaitQuery,
    list_parameters,
)
from vmkernel.control import requests
from vmkernel.model import (
    VM_LISTING,
    ErrorCode,
    MicaError,
    Role,
    Vm,
    VmAction,
    VmSpec,
)

__all__ = ["ROUTES", "TAGS"]

_ATTEMPTS = 5
SAVED_VM_BYTES = 10 << 20
"""Three files of machine state (2 MiB each, a third more in base64) and a spec."""


async def list_vms(exchange: Exchange[ListParameters, NoBody]) -> Response:
    return await answer_list(exchange, requests.ListVms)


async def get_vm(exchange: Exchange[NoQuery, NoBody]) -> Response:
    return _vm(await exchange.call(requests.GetVm(id=exchange.id)))


async def put_vm(exchange: Exchange[NoQuery, VmBody]) -> Response:
    """Create a virtual machine, or replace its spec."""
    spec = exchange.body.spec
    if isinstance(exchange.precondition, Matching):
        _refuse_machine(exchange.body)
        return _vm(await _replaced(exchange, exchange.precondition, spec))
    vm = await exchange.call(
        requests.CreateVm(id=exchange.id, spec=spec, machine=exchange.body.machine)
    )
    return _vm(vm, status=201, location=exchange.path)


async def _replaced(exchange: Exchange[NoQuery, VmBody], wanted: Matching, spec: VmSpec) -> Vm:
    async def current() -> int:
        return (await exchange.call(requests.GetVm(id=exchange.id))).revision

    attempt = 1
    while True:
        try:
            revision = await expected_revision(wanted, current)
            revision = await current() if revision is None else revision
        except MicaError as error:
            if error.problem.code is ErrorCode.NOT_FOUND and wanted.versions is None:
                raise mismatch() from error  # `If-Match: *` holds for what exists alone
            raise
        request = requests.UpdateVm(id=exchange.id, spec=spec, revision=revision)
        try:
            return await exchange.call(request)
        except MicaError as error:
            lost_race = error.problem.code is ErrorCode.REVISION_MISMATCH
            if not lost_race or wanted.versions is not None or attempt == _ATTEMPTS:
                raise
        attempt += 1


async def patch_vm(exchange: Exchange[NoQuery, VmBody]) -> Response:
    """Merge a patch into what the virtual machine is wanted to be."""
    expected = exchange.precondition
    any_version = not isinstance(expected, Matching) or expected.versions is None
    for attempt in range(1, _ATTEMPTS + 1):
        vm = await exchange.call(requests.GetVm(id=exchange.id))
        if isinstance(expected, Matching) and not expected.admits(str(vm.revision)):
            raise ApiError(
                ErrorCode.REVISION_MISMATCH,
                f"VM {vm.id} is at revision {vm.revision}; read it again and repeat the change.",
            )
        body = decode_patch(exchange.raw_body, VmBody(spec=vm.spec), VmBody)
        _refuse_machine(body)
        try:
            return _vm(
                await exchange.call(
                    requests.UpdateVm(
                        id=exchange.id,
                        spec=body.spec,
                        revision=vm.revision,
                    )
                )
            )
        except MicaError as error:
            lost_race = error.problem.code is ErrorCode.REVISION_MISMATCH
            if not lost_race or not any_version or attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _refuse_machine(body: VmBody) -> None:
    if body.machine is not None:
        raise ApiError.field(
            "/machine", "A saved machine state is accepted only when a VM is created; omit it."
        )


async def delete_vm(exchange: Exchange[DeleteVmQuery, NoBody]) -> Response:
    """Delete a stopped virtual machine."""

    async def current() -> int:
        return (await exchange.call(requests.GetVm(id=exchange.id))).revision

    revision = await expected_revision(exchange.precondition, current)
    await exchange.call(
        requests.DeleteVm(
            id=exchange.id,
            revision=revision,
            with_volumes=exchange.query.with_volumes,
        )
    )
    return Response(status=204)


def _act(action: VmAction) -> Callable[[Exchange[WaitQuery, NoBody]], Awaitable[Response]]:
    async def act(exchange: Exchange[WaitQuery, NoBody]) -> Response:
        operation = await exchange.call(requests.ActOnVm(id=exchange.id, action=action))
        return await accepted(exchange, operation, exchange.query.wait)

    return act


async def shut_down_vm(exchange: Exchange[ShutdownQuery, NoBody]) -> Response:
    """Ask the guest to shut down."""
    operation = await exchange.call(
        requests.ActOnVm(
            id=exchange.id,
            action=VmAction.SHUTDOWN,
            timeout_s=exchange.query.timeout_s,
        )
    )
    return await accepted(exchange, operation, exchange.query.wait)


def _vm(vm: Vm, *, status: int = 200, location: str | None = None) -> Response:
    return json_response(vm, status=status, version=vm.revision, location=location)


_CHANGE_PROBLEMS = (
    ErrorCode.CONFLICT,
    ErrorCode.IN_USE,
    ErrorCode.UNSUPPORTED,
    ErrorCode.INSUFFICIENT_SPACE,
    ErrorCode.REVISION_MISMATCH,
)
_ACTION_PROBLEMS = (
    ErrorCode.NOT_FOUND,
    ErrorCode.CONFLICT,
    ErrorCode.IN_USE,
    ErrorCode.UNSUPPORTED,
    ErrorCode.INVALID,
)


def _action(action: VmAction, name: str, summary: str, *more: ProblemCode) -> AnyRoute:
    """The route of an action that takes nothing but a wait; `more` is what else it may answer."""
    return Route(
        method="POST",
        path=f"/v1/vms/{{id}}/{action.value}",
        name=name,
        summary=summary,
        handler=_act(action),
        role=Role.OPERATOR,
        query=WaitQuery,
        replies=STARTED,
        problems=(*_ACTION_PROBLEMS, *more),
    )


TAGS = {"vms": "Virtual machines."}
ROUTES: tuple[AnyRoute, ...] = (
    Route(
        method="GET",
        path="/v1/vms",
        name="listVms",
        summary="All virtual machines, ordered by id",
        handler=list_vms,
        query=list_parameters(VM_LISTING),
        replies=(Reply(status=200, description="A page of virtual machines.", body=PageOf[Vm]),),
    ),
    Route(
        method="GET",
        path="/v1/vms/{id}",
        name="getVm",
        summary="One virtual machine",
        details="Its desired spec and its status: state, guest agent, NICs.",
        handler=get_vm,
        holds_secrets=True,
        replies=(Reply(status=200, description="The virtual machine.", body=Vm, etag=True),),
        problems=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        method="PUT",
        path="/v1/vms/{id}",
        name="putVm",
        summary="Create a virtual machine (`If-None-Match: *`) or replace its spec (`If-Match`)",
        handler=put_vm,
        role=Role.OPERATOR,
        body=VmBody,
        body_kind=BodyKind.JSON,
        examples={
            "minimal": {
                "spec": {"datastore": "main", "disks": [{"volume": "web-1"}], "nics": [{}]}
            },
            "installed from a CD": {
                "spec": {
                    "datastore": "main",
                    "cpus": {"count": 2},
                    "memory_bytes": 2147483648,
                    "disks": [{"volume": "web-1"}],
                    "cdroms": [{"image": "debian-13"}],
                    "nics": [{"port_group": "vm-network"}],
                    "labels": {"team": "web"},
                }
            },
        },
        max_body_bytes=SAVED_VM_BYTES,
        condition=Condition.EITHER,
        replies=(
            Reply(
                status=201,
                description="The virtual machine is created.",
                body=Vm,
                etag=True,
                location=True,
            ),
            Reply(status=200, description="It is changed.", body=Vm, etag=True),
        ),
        problems=(ErrorCode.NOT_FOUND, ErrorCode.ALREADY_EXISTS, *_CHANGE_PROBLEMS),
    ),
    Route(
        method="PATCH",
        path="/v1/vms/{id}",
        name="patchVm",
        summary="Merge a patch (RFC 7396) into the virtual machine's spec",
        handler=patch_vm,
        role=Role.OPERATOR,
        body=VmBody,
        body_kind=BodyKind.MERGE_PATCH,
        examples={"more of both": {"spec": {"cpus": {"count": 4}, "memory_bytes": 4294967296}}},
        condition=Condition.MATCH,
        replies=(Reply(status=200, description="It is changed.", body=Vm, etag=True),),
        problems=(ErrorCode.NOT_FOUND, *_CHANGE_PROBLEMS),
    ),
    Route(
        method="DELETE",
        path="/v1/vms/{id}",
        name="deleteVm",
        summary="Delete a stopped virtual machine; its volumes stay unless `with_volumes`",
        handler=delete_vm,
        role=Role.OPERATOR,
        query=DeleteVmQuery,
        condition=Condition.MATCH,
        replies=(Reply(status=204, description="It is gone."),),
        problems=(
            ErrorCode.NOT_FOUND,
            ErrorCode.CONFLICT,
            ErrorCode.IN_USE,
            ErrorCode.REVISION_MISMATCH,
        ),
    ),
    _action(
        VmAction.START,
        "startVm",
        "Start a virtual machine; a suspended one continues from its saved memory",
        ErrorCode.INSUFFICIENT_RESOURCES,
    ),
    _action(VmAction.PAUSE, "pauseVm", "Pause a running virtual machine; it stays in memory"),
    _action(
        VmAction.RESUME,
        "resumeVm",
        "Resume a paused or suspended virtual machine",
        ErrorCode.INSUFFICIENT_RESOURCES,
    ),
    _action(
        VmAction.SUSPEND,
        "suspendVm",
        "Suspend a virtual machine to disk; this survives a restart of the host",
        ErrorCode.INSUFFICIENT_SPACE,
    ),
    _action(
        VmAction.DISCARD_STATE,
        "discardVmState",
        "Discard the saved memory of a suspended virtual machine, as a power cut would",
    ),
    _action(
        VmAction.UPDATE_SECURE_BOOT,
        "updateVmSecureBoot",
        "Add the Secure Boot certificates that a stopped virtual machine lacks to its firmware"
        " variables; the others stay",
    ),
    Route(
        method="POST",
        path="/v1/vms/{id}/shutdown",
        name="shutDownVm",
        summary="Ask the guest to shut down, by its agent or its power button, which is pressed"
        " again every 10 seconds until the guest ends; it is not forced",
        handler=shut_down_vm,
        role=Role.OPERATOR,
        query=ShutdownQuery,
        replies=STARTED,
        problems=_ACTION_PROBLEMS,
    ),
    _action(
        VmAction.POWER_OFF,
        "powerOffVm",
        "Power off a virtual machine at once, as if its plug were pulled",
    ),
    _action(VmAction.RESET, "resetVm", "Reset a running virtual machine, like its reset button"),
)
