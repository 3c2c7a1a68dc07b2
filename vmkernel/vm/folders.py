"""The folders of VMs in datastores: their VMs are taken up when a datastore comes, and set aside
when it goes."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

from msgspec.structs import replace

from vmkernel.aio import BackgroundTasks
from vmkernel.host.files import exists, is_folder, names
from vmkernel.model import SLUG_PATTERN, Finding, MicaError, Severity
from vmkernel.vm.context import VmContext
from vmkernel.vm.datastore_use import datastores_of
from vmkernel.vm.inventory import UnusableVm, VmInventory
from vmkernel.vm.store import definition as definitions
from vmkernel.vm.store.clone_journal import sweep
from vmkernel.vm.store.definition import DefinitionError, VmDefinition

__all__ = ["VmFolders"]

_log = logging.getLogger(__name__)

_SLUG = re.compile(SLUG_PATTERN)
_LOADING = "vms-of-"


class VmFolders:
    """Fills the inventory."""

    def __init__(self, host: VmContext, inventory: VmInventory, tasks: BackgroundTasks) -> None:
        self._host = host
        self._inventory = inventory
        self._tasks = tasks
        self.loaded: set[str] = set()
        """The datastores that are there, and whose VMs are known."""
        self.clashes: dict[tuple[str, str], Finding] = {}
        """VMs that are left out, since another datastore has one of the same id."""
        self.cloning: set[str] = set()
        """The tokens of the clones under way."""
        self._sweeping = asyncio.Lock()

    async def start(self) -> None:
        """Load the VMs of every datastore, and of those that appear later."""
        self._host.storage.on_datastore_change(self._datastore_changed)
        for datastore in self._host.storage.datastores():
            await self._load(datastore)

    async def all_loaded(self) -> None:
        """Wait until the VMs of all available datastores are known."""
        await self._tasks.ended(_LOADING)

    def _datastore_changed(self, datastore: str, available: bool) -> None:
        for driver in self._inventory.drivers():
            used = datastores_of(self._host.storage, driver.definition.spec)
            if driver.active and datastore in used:
                driver.datastore_changed(datastore, available)
        self.loaded.discard(datastore)
        if available:
            self._tasks.begin(self._load(datastore), f"{_LOADING}{datastore}")
            return
        self._inventory.set_aside(datastore)
        # Before another datastore comes by the name of one that was deleted.
        self._inventory.forget_gone()

    async def _load(self, datastore: str) -> None:
        """Load the VMs of a datastore."""
        try:
            root = self._host.storage.vms_folder(datastore)
            found = await asyncio.to_thread(_read_folders, root)
        except (MicaError, OSError) as error:
            _log.warning("the VMs of datastore %s can't be read: %s", datastore, error)
            return
        async with self._sweeping:
            await sweep(self._host.storage, self.cloning)
        self._inventory.forget_gone()  # a renamed datastore's VMs are not in their own way
        starting = []
        for folder, result in found:
            vm_id = folder.name
            known = self._inventory.find(vm_id)
            if known is not None:
                if known.folder != folder:
                    self._note_clash(datastore, vm_id, known.definition.spec.datastore)
                continue
            other = self._inventory.unusable(vm_id)
            if other is not None and other.datastore != datastore:
                self._note_clash(datastore, vm_id, other.datastore)
                continue
            if isinstance(result, DefinitionError):
                self._inventory.note_unusable(
                    UnusableVm(datastore, folder, f"Its definition can't be used: {result}.")
                )
                continue
            fitted = self._fitted(result, datastore)
            starting.append(self._inventory.adopt(fitted, folder))
            if fitted.uid != result.uid:
                await _write(folder, fitted)
        for driver in starting:
            await driver.ready()
        self.loaded.add(datastore)

    def _fitted(self, definition: VmDefinition, datastore: str) -> VmDefinition:
        """A definition as it is used here: a datastore may carry another name on this host, and
        a user number may be taken."""
        spec = definition.spec
        if spec.datastore != datastore:
            spec = replace(spec, datastore=datastore)
        uid = definition.uid
        taken = uid in self._inventory.reservations.uids(definition.id)
        if taken or not definitions.FIRST_UID <= uid <= definitions.LAST_UID:
            uid = self._inventory.free_uid()
        return replace(definition, spec=spec, uid=uid)

    def _note_clash(self, datastore: str, vm_id: str, owner: str) -> None:
        self.clashes[(datastore, vm_id)] = Finding(
            code="vm-id-clash",
            severity=Severity.WARNING,
            message=f"Datastore {datastore} holds a VM {vm_id} as datastore {owner} does:"
            " only the latter is shown.",
            subject=vm_id,
        )


async def _write(folder: Path, definition: VmDefinition) -> None:
    """Store a changed user number, so that no other VM gets it later."""
    try:
        await asyncio.to_thread(definitions.save, folder, definition)
    except OSError as error:
        _log.warning("the user number of VM %s can't be kept: %s", definition.id, error)


def _read_folders(root: Path) -> list[tuple[Path, VmDefinition | DefinitionError]]:
    """Every VM folder with its content; a folder without `vm.json` isn't a VM."""
    found: list[tuple[Path, VmDefinition | DefinitionError]] = []
    for name in names(root):
        folder = root / name
        if not _SLUG.match(name) or not is_folder(folder):
            continue
        if not exists(folder / definitions.DEFINITION_FILE):
            continue
        try:
            found.append((folder, definitions.load(folder)))
        except DefinitionError as error:
            found.append((folder, error))
    return found
