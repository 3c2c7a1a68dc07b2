"""Every wire of a vmkernel is there: each request has its handler, and it ends tidily."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.framework.pages import items_of
from tests.framework.running import on_loop
from tests.unit.platform.sample_tree import SampleMachine
from vmkernel.adapters import Adapters
from vmkernel.adapters_appliance import ApplianceAdapters
from vmkernel.adapters_hosted import HostedAdapters
from vmkernel.control import ControlClient, requests
from vmkernel.control.requests import REQUESTS
from vmkernel.events import EventBus
from vmkernel.host.runner import Runner
from vmkernel.host.system import System
from vmkernel.model import (
    DatastoreKind,
    DatastoreSpec,
    DiskSpec,
    ErrorCode,
    HostMode,
    MicaError,
    Operation,
    Token,
    Vm,
    VmSpec,
    VmState,
    VolumeFormat,
    VolumeSpec,
)
from vmkernel.operations import OperationRegistry
from vmkernel.options import Options
from vmkernel.platform.machine_access import MachineAccess
from vmkernel.platform.programs import StartRefusedError
from vmkernel.state import StateStore
from vmkernel.state.config import TlsMaterial
from vmkernel.vm.assembly import AcceleratorWish
from vmkernel.wiring import Vmkernel

ANSWERED_BY_THE_SERVER = {"event.subscribe"}
"""It is no question with one answer."""
TLS = TlsMaterial(
    certificate_pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    private_key_pem="key",
)


class Hosted(HostedAdapters):
    """Hosted mode without its programs: no QEMU is asked for, and the identity is there."""

    refused = False

    async def check_programs(self) -> None:
        if self.refused:
            raise StartRefusedError("There is no QEMU.")

    async def apply_settings(self, store: StateStore, events: EventBus) -> None:
        await super().apply_settings(store, events)
        await store.commit(msgspec.structs.replace(store.config, tls=TLS))


def options(root: Path, mode: HostMode = HostMode.HOSTED) -> Options:
    """With a QEMU that does nothing but say its version."""
    qemu = root / "qemu"
    qemu.write_text("#!/bin/sh\necho QEMU emulator version 10.0.0\n")
    qemu.chmod(0o755)
    return Options(
        qemu=qemu,
        mode=mode,
        run_dir=root / "run",
        control=root / "run/control.sock",
        state_dir=root / "state",
        accelerator=AcceleratorWish.TCG,
        boot_name="first",
        allowed_uids=frozenset({os.getuid()}),
    )


@contextlib.asynccontextmanager
async def vmkernel(
    root: Path, choose: Callable[[Options], Adapters] = Hosted
) -> AsyncIterator[ControlClient]:
    """One that serves."""
    before = asyncio.all_tasks()
    given = options(root)
    kernel = Vmkernel(given, choose)
    task = asyncio.create_task(kernel.run())
    client = ControlClient(given.control)
    try:
        while not task.done():
            with contextlib.suppress(MicaError):
                await client.call(requests.GetApiInfo())
                break
            await asyncio.sleep(0.01)
        yield client
    finally:
        client.close()
        kernel.stop()
        await task
    assert asyncio.all_tasks() == before, "whatever it began has an owner that ends it"


async def finished(client: ControlClient, operation: Operation, token: str) -> Operation:
    """The operation at its end."""
    while not operation.state.finished:
        await asyncio.sleep(0.01)
        operation = await client.call(requests.GetOperation(id=operation.id), token=token)
    return operation


@on_loop
async def test_every_request_has_a_handler(tmp_path: Path) -> None:
    async with vmkernel(tmp_path) as client:
        info = await client.call(requests.GetApiInfo())
        assert info.capabilities is not msgspec.UNSET
        known = {str(kind.__struct_config__.tag) for kind in REQUESTS}
        assert known - set(info.capabilities) == ANSWERED_BY_THE_SERVER
        assert (info.mode, info.claimed) == (HostMode.HOSTED, False)


@on_loop
async def test_each_part_is_reached_and_they_reach_each_other(tmp_path: Path) -> None:
    async with vmkernel(tmp_path) as client:
        code = msgspec.json.decode((tmp_path / "run/claim.json").read_bytes())["code"]
        token = (await client.call(requests.Claim(code=code, token_id="admin"))).secret

        async def ask(request: requests.Request[Any]) -> Any:
            return await client.call(request, token=token)

        assert (await ask(requests.GetHost())).hostname
        for listed in (
            requests.ListVms(),
            requests.ListDatastores(),
            requests.ListVolumes(),
            requests.ListImages(),
            requests.ListOperations(),
            requests.ListUploads(),
        ):
            assert (await ask(listed)).items == b""
        assert [item.id for item in items_of(await ask(requests.ListTokens()), Token)] == ["admin"]
        # VMs ask storage for their datastore ...
        with pytest.raises(MicaError) as caught:
            await ask(requests.CreateVm(id="web", spec=VmSpec(datastore="none")))
        assert caught.value.problem.code is ErrorCode.INVALID
        # ... and their backups, snapshots and clones ask for the VM.
        for unknown in (
            requests.ListBackups(id="web"),
            requests.ListSnapshots(vm="web"),
            requests.ListCheckpoints(id="web"),
        ):
            with pytest.raises(MicaError) as caught:
                await ask(unknown)
            assert caught.value.problem.code is ErrorCode.NOT_FOUND
        assert (await ask(requests.GetAllStatistics())) is not None


@on_loop
async def test_what_was_made_is_there_again_and_its_parts_know_of_each_other(
    tmp_path: Path,
) -> None:
    datastore = DatastoreSpec(kind=DatastoreKind.DIRECTORY, path=str(tmp_path / "main"))
    async with vmkernel(tmp_path) as client:
        code = msgspec.json.decode((tmp_path / "run/claim.json").read_bytes())["code"]
        token = (await client.call(requests.Claim(code=code, token_id="admin"))).secret
        founding = requests.CreateDatastore(id="main", spec=datastore)
        made = await finished(client, await client.call(founding, token=token), token)
        assert made.error is None
        volume = VolumeSpec(datastore="main", size_bytes=1 << 20, format=VolumeFormat.RAW)
        making = requests.CreateVolume(id="data", spec=volume)
        made = await finished(client, await client.call(making, token=token), token)
        assert made.error is None
        spec = VmSpec(datastore="main", disks=(DiskSpec(volume="data"),))
        await client.call(requests.CreateVm(id="web", spec=spec), token=token)
    async with vmkernel(tmp_path) as client:
        assert (await client.call(requests.GetApiInfo())).claimed
        vms = await client.call(requests.ListVms(), token=token)
        assert [(vm.id, vm.status.state) for vm in items_of(vms, Vm)] == [("web", VmState.STOPPED)]
        with pytest.raises(MicaError, match="VM web") as caught:
            await client.call(requests.DeleteVolume(id="data"), token=token)
        assert caught.value.problem.code is ErrorCode.IN_USE


@on_loop
async def test_a_start_that_is_refused_leaves_nothing_running(tmp_path: Path) -> None:
    class Refusing(Hosted):
        refused = True

    before = asyncio.all_tasks()
    with pytest.raises(StartRefusedError):
        await Vmkernel(options(tmp_path), Refusing).run()
    assert asyncio.all_tasks() == before
    assert not (tmp_path / "run/control.sock").exists()


@on_loop
async def test_the_appliance_s_parts_fit_together(tmp_path: Path) -> None:
    """As far as they can be had without a machine: nothing of them is started."""
    tree = SampleMachine(tmp_path)
    tree.stick("sda")
    tree.write("sys/class/tty/console/active", "ttyS0")
    given = replace(options(tmp_path, HostMode.APPLIANCE), state_device=tmp_path / "none")
    machine = MachineAccess(System(Runner()), sys=tree.sys, proc=tree.proc, dev=tree.dev)
    adapters: Adapters = ApplianceAdapters(given, machine)
    opened = await adapters.open_medium()
    assert (opened.medium, "can't be opened" in opened.reason) == (None, True)
    store, bus = StateStore(None, shadow=opened.shadow), EventBus()
    store.open(opened.reason)
    operations = OperationRegistry(bus)
    storage = adapters.make_storage(store, operations, bus)
    vms = adapters.make_vms(storage, operations, bus)
    assert vms is not None
    storage.usage.bind(vms.usage)
    storage.usage.bind_live(vms.live_disks)
    assert vms.inventory.list_vms() == ()
    kinds = {driver.kind.value for driver in storage.datastores.drivers()}
    assert kinds == {kind.value for kind in DatastoreKind} - {"directory"}
    adapters.close()
