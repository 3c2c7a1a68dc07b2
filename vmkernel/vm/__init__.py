"""Virtual machines: their definitions, states and drivers; it must not touch datastores' other
files, nor speak QMP or netlink itself (vmkernel.qemu and vmkernel.host do)."""

from vmkernel.vm.assembly import AcceleratorWish, assemble_vms
from vmkernel.vm.service import VmService

__all__ = ["AcceleratorWish", "VmService", "assemble_vms"]
