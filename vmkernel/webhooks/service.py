"""Which webhooks there are, kept in the host's configuration, and what each is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from vmkernel import clock, dry_run
from vmkernel.events import EventBus, EventFilter, make_filter
from vmkernel.events.filter import Labels
from vmkernel.model import (
    CONCEALED,
    ErrorCode,
    Event,
    MicaError,
    Role,
    Subject,
    Webhook,
    WebhookAttempt,
    WebhookSpec,
    WebhookState,
    WebhookStatus,
)
from vmkernel.state import HostConfig, StateStore
from vmkernel.state.config import StoredWebhook
from vmkernel.webhooks.signing import body_of, secret_key
from vmkernel.webhooks.spool import Spool
from vmkernel.webhooks.target import Limits, Message, Receipt, Target
from vmkernel.workers.outbound import judge_url
from vmkernel.workers.report import Refusal

__all__ = ["WebhookService"]

_log = logging.getLogger(__name__)
SendTo = Callable[[str, Sequence[Message]], Awaitable[Sequence[Receipt]]]
"""Sends messages to a URL; see `Sender`."""
_MAX_WEBHOOKS = 16
"""Each may hold 16 KiB of filters in the configuration, and 1 MiB of events in memory."""
_DEFECT_S = 60.0
_POINTERS = {"type": "types", "subject": "subjects", "label": "labels"}


class WebhookService:
    """Owned by the event loop's thread."""

    def __init__(
        self,
        store: StateStore,
        bus: EventBus,
        send: SendTo,
        run_dir: Path,
        *,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._send = send
        self._folder = run_dir / "webhooks"
        self._limits = limits or Limits()
        self._running: dict[str, _Running] = {}
        bus.objects.add("webhook", self.get, role=Role.ADMIN)

    def start(self) -> None:
        """Take up what is known; from here on events are queued."""
        known = {stored.id for stored in self._store.config.webhooks}
        with contextlib.suppress(OSError):
            for folder in self._folder.iterdir():
                if folder.name not in known:
                    shutil.rmtree(folder, ignore_errors=True)
        for stored in self._store.config.webhooks:
            self._begin(stored)
        self._bus.observe(self._queue)

    async def stop(self) -> None:
        """End the deliveries; what waits is kept for the next start."""
        tasks = [each.task for each in self._running.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def list(self) -> tuple[Webhook, ...]:
        """All webhooks by id, without their secrets."""
        stored = sorted(self._store.config.webhooks, key=lambda each: each.id)
        return tuple(map(self._shown, stored))

    def get(self, webhook_id: str) -> Webhook:
        """One webhook, without its secret."""
        return self._shown(self._stored(webhook_id))

    async def create(self, webhook_id: str, spec: WebhookSpec, *, actor: str) -> Webhook:
        """Make a webhook; durable on return."""
        if spec.secret == CONCEALED:
            raise MicaError.field("/spec/secret", f"A new webhook needs a secret, not {CONCEALED}.")
        _check(spec)
        stored = StoredWebhook(id=webhook_id, created_at=clock.now(), spec=spec)

        def change(config: HostConfig) -> HostConfig:
            if any(each.id == webhook_id for each in config.webhooks):
                raise MicaError(
                    ErrorCode.ALREADY_EXISTS, f"There is a webhook {webhook_id} already."
                )
            if len(config.webhooks) >= _MAX_WEBHOOKS:
                raise MicaError(
                    ErrorCode.INSUFFICIENT_RESOURCES,
                    f"There are {_MAX_WEBHOOKS} webhooks already; delete one first.",
                )
            return replace(config, webhooks=(*config.webhooks, stored))

        if dry_run.dry():
            change(self._store.config)
            new = WebhookState.NEW if spec.enabled else WebhookState.DISABLED
            dry_run.ending(_concealed(stored, WebhookStatus(state=new)))
        await self._store.update(change)
        self._begin(stored)
        self._publish("webhook.created", webhook_id, actor=actor)
        return self.get(webhook_id)

    async def update(
        self, webhook_id: str, spec: WebhookSpec, revision: int, *, actor: str
    ) -> Webhook:
        """Change a webhook; durable on return."""
        known = self._stored(webhook_id)
        if spec.secret == CONCEALED:
            spec = replace(spec, secret=known.spec.secret)
        _check(spec)
        before = self._shown(known)
        if dry_run.dry():
            _check_revision(known, revision)
            planned = replace(known, spec=spec, revision=known.revision + (spec != known.spec))
            dry_run.ending(_concealed(planned, before.status))
        changed = await self._change(webhook_id, spec, None, revision)
        if changed == known:
            return before
        running = self._running[webhook_id]
        await running.end()
        if not spec.enabled:
            running.target.spool.clear()
        self._begin(changed, running.target)
        running.target.changed()
        self._publish("webhook.updated", webhook_id, actor=actor)
        return self.get(webhook_id)

    async def delete(self, webhook_id: str, revision: int | None, *, actor: str) -> None:
        """Delete a webhook; durable on return. What waited is dropped."""
        before = self.get(webhook_id)

        def change(config: HostConfig) -> HostConfig:
            for each in config.webhooks:
                if each.id == webhook_id:
                    _check_revision(each, revision)
            left = tuple(each for each in config.webhooks if each.id != webhook_id)
            return replace(config, webhooks=left)

        if dry_run.dry():
            change(self._store.config)
            dry_run.ending(None)
        await self._store.update(change)
        running = self._running.pop(webhook_id, None)
        if running is not None:
            await running.end()
            running.target.spool.remove()
        self._publish("webhook.deleted", webhook_id, actor=actor, before=before)

    async def ping(self, webhook_id: str, *, actor: str) -> WebhookAttempt:
        """Send a test event now, once, whether the webhook is enabled or not."""
        self._stored(webhook_id)
        event = Event(
            id=self._bus.position,
            time=clock.now(),
            type="webhook.ping",
            subject=Subject(kind="webhook", id=webhook_id),
            actor=actor,
            message="A test.",
        )
        target = self._running[webhook_id].target
        return await target.ping(f"ping-{uuid.uuid4().hex}", body_of(event))

    # --- parts --------------------------------------------------------------------------------

    def _queue(self, event: Event, labels: tuple[Labels, ...]) -> None:
        body = b""
        for running in self._running.values():
            if running.enabled and running.wanted.passes(event, labels):
                body = body or body_of(event)
                host = self._store.config.uuid.partition("-")[0]
                running.target.add(f"{host}-{event.id}", body)

    def _begin(self, stored: StoredWebhook, known: Target | None = None) -> None:
        webhook_id = stored.id
        target = known
        if target is None:
            target = Target(
                webhook_id,
                secret=lambda: self._stored(webhook_id).spec.secret,
                send=lambda messages: self._send(self._stored(webhook_id).spec.url, messages),
                spool=Spool(self._folder / webhook_id),
                on_failing=partial(self._tell, "webhook.failing", webhook_id),
                on_disable=partial(self._disable, webhook_id),
                limits=self._limits,
            )
            target.spool.load()
        wanted = stored.spec.filter
        running = _Running(
            target, make_filter(wanted.types, wanted.subjects, wanted.labels), stored.spec.enabled
        )
        if stored.spec.enabled:
            running.task = asyncio.create_task(_followed(target), name=f"webhook {webhook_id}")
        self._running[webhook_id] = running

    async def _disable(self, webhook_id: str, reason: str) -> None:
        """By the webhook's own task, which ends then."""
        spec = replace(self._stored(webhook_id).spec, enabled=False)
        running = self._running[webhook_id]
        running.enabled = False
        running.target.spool.clear()
        try:
            await self._change(webhook_id, spec, reason, None)
        except MicaError as error:
            _log.warning("webhook %s is disabled until the next start alone: %s", webhook_id, error)
        self._tell("webhook.disabled", webhook_id, reason)

    async def _change(
        self, webhook_id: str, spec: WebhookSpec, reason: str | None, revision: int | None
    ) -> StoredWebhook:
        changed: list[StoredWebhook] = []

        def change(config: HostConfig) -> HostConfig:
            changed.clear()
            after = []
            for each in config.webhooks:
                if each.id == webhook_id:
                    _check_revision(each, revision)
                    if each.spec != spec:
                        each = replace(
                            each, spec=spec, revision=each.revision + 1, disabled_reason=reason
                        )
                    changed.append(each)
                after.append(each)
            if not changed:
                raise _no_webhook(webhook_id)
            return replace(config, webhooks=tuple(after))

        await self._store.update(change)
        return changed[0]

    def _stored(self, webhook_id: str) -> StoredWebhook:
        for stored in self._store.config.webhooks:
            if stored.id == webhook_id:
                return stored
        raise _no_webhook(webhook_id)

    def _shown(self, stored: StoredWebhook) -> Webhook:
        target = self._running[stored.id].target
        return _concealed(
            stored,
            target.status(enabled=stored.spec.enabled, disabled_reason=stored.disabled_reason),
        )

    def _tell(self, event_type: str, webhook_id: str, reason: str) -> None:
        self._publish(event_type, webhook_id, message=reason)

    def _publish(
        self,
        event_type: str,
        webhook_id: str,
        *,
        actor: str | None = None,
        message: str = "",
        before: Webhook | None = None,
    ) -> None:
        self._bus.publish(
            event_type,
            Subject(kind="webhook", id=webhook_id),
            actor=actor,
            message=message,
            before=before,
        )


class _Running:
    """A webhook with its task."""

    def __init__(self, target: Target, wanted: EventFilter, enabled: bool) -> None:
        self.target = target
        self.wanted = wanted
        self.enabled = enabled
        self.task: asyncio.Task[None] | None = None

    async def end(self) -> None:
        """End its deliveries; one under way may then be repeated."""
        self.enabled = False
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


async def _followed(target: Target) -> None:
    """Its deliveries; a defect costs a minute, not the webhook."""
    while True:
        try:
            await target.run()
        except Exception:
            _log.exception("the deliveries of webhook %s failed by a defect", target.webhook_id)
            await asyncio.sleep(_DEFECT_S)
        else:
            return


def _concealed(stored: StoredWebhook, status: WebhookStatus) -> Webhook:
    """A webhook as clients see it: without its secret."""
    return Webhook(
        id=stored.id,
        revision=stored.revision,
        created_at=stored.created_at,
        spec=replace(stored.spec, secret=CONCEALED),
        status=status,
    )


def _check(spec: WebhookSpec) -> None:
    """Raise MicaError with the field for what can't be used."""
    try:
        judge_url(spec.url)
    except Refusal as refusal:
        raise MicaError.field("/spec/url", str(refusal)) from refusal
    try:
        secret_key(spec.secret)
    except ValueError as error:
        raise MicaError.field(
            "/spec/secret",
            f"The secret can't be used: {error}. Write `whsec_` and 24 to 64 bytes in Base64.",
        ) from error
    wanted = spec.filter
    try:
        make_filter(wanted.types, wanted.subjects, wanted.labels)
    except MicaError as error:
        fields = tuple(
            msgspec.structs.replace(each, pointer=f"/spec/filter/{_POINTERS[each.pointer]}")
            for each in error.problem.fields
        )
        raise MicaError(error.problem.code, error.problem.detail, fields=fields) from error


def _check_revision(stored: StoredWebhook, revision: int | None) -> None:
    if revision is not None and stored.revision != revision:
        raise MicaError(
            ErrorCode.REVISION_MISMATCH,
            f"Webhook {stored.id} is at revision {stored.revision}; read it and repeat the change.",
        )


def _no_webhook(webhook_id: str) -> MicaError:
    return MicaError(ErrorCode.NOT_FOUND, f"There is no webhook {webhook_id}.")
