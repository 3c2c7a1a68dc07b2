"""Tokens, the claim, and the API's certificate."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from vmkernel.auth import AccessService, AuditTrail, Caller
from vmkernel.control.dispatch import Dispatcher
from vmkernel.control.lists import Fetched, Selection, answer, answer_from
from vmkernel.control.requests import (
    Claim,
    CreateToken,
    DeleteToken,
    Done,
    GetTlsIdentity,
    GetToken,
    ListAudit,
    ListTokens,
    Page,
    RotateCertificate,
    TlsIdentity,
    WhoAmI,
)
from vmkernel.events import EventBus
from vmkernel.model import (
    ErrorCode,
    HostCertificate,
    IssuedToken,
    MicaError,
    Subject,
    Token,
)
from vmkernel.state import StateStore
from vmkernel.state.config import TlsMaterial
from vmkernel.state.identity import fingerprint

__all__ = ["MakeIdentity", "register", "register_audit"]

MakeIdentity = Callable[[str, str], Awaitable[TlsMaterial]]


def register_audit(dispatcher: Dispatcher, trail: AuditTrail) -> None:
    @dispatcher.handler
    async def list_audit(request: ListAudit, _: Caller) -> Page:
        async def fetch(_: Selection, after: str | None, limit: int) -> Fetched:
            return trail.list(before=after, limit=limit)

        return await answer(request, fetch)


def register(
    dispatcher: Dispatcher,
    access: AccessService,
    store: StateStore,
    bus: EventBus,
    make_identity: MakeIdentity,
) -> None:
    """`make_identity(hostname, uuid)` makes certificates."""

    @dispatcher.handler
    async def tls(_: GetTlsIdentity, __: Caller) -> TlsIdentity:
        material = store.config.tls
        if material is None:
            raise MicaError(ErrorCode.UNAVAILABLE, "The host has no certificate yet; ask again.")
        return TlsIdentity(
            certificate_pem=material.certificate_pem.encode(),
            private_key_pem=material.private_key_pem.encode(),
        )

    @dispatcher.handler
    async def rotate(_: RotateCertificate, caller: Caller) -> HostCertificate:
        material = await make_identity(store.config.hostname, store.config.uuid)
        await store.update(lambda config: msgspec.structs.replace(config, tls=material))
        shown = fingerprint(material.certificate_pem)
        bus.publish(
            "host.certificate-rotated",
            Subject(kind="host", id="host"),
            actor=caller.actor,
            message=f"The API has a new certificate; its SHA-256 fingerprint is {shown}.",
            data={"fingerprint_sha256": shown},
        )
        return HostCertificate(certificate_pem=material.certificate_pem, fingerprint_sha256=shown)

    @dispatcher.handler
    async def claim(request: Claim, caller: Caller) -> IssuedToken:
        return await access.claim(request.code, request.token_id, origin=caller.origin)

    @dispatcher.handler
    async def list_tokens(request: ListTokens, _: Caller) -> Page:
        return await answer_from(request, access.list())

    @dispatcher.handler
    async def get_token(request: GetToken, _: Caller) -> Token:
        return access.get(request.id)

    @dispatcher.handler
    async def who_am_i(_: WhoAmI, caller: Caller) -> Token:
        return access.get(caller.actor)

    @dispatcher.handler
    async def create_token(request: CreateToken, caller: Caller) -> IssuedToken:
        return await access.create(request.id, request.spec, actor=caller.actor)

    @dispatcher.handler
    async def delete_token(request: DeleteToken, caller: Caller) -> Done:
        await access.delete(request.id, actor=caller.actor)
        return Done()
