"""The hypervisor core: it owns VMs, storage, networks and the host; it never imports remote_api."""
