"""Virtual machines: their definitions, states and drivers; it must not touch datastores' other
files, nor speak QMP or netlink itself (vmkernel.qemu and vmkernel.host do)."""
