"""Serial consoles and screens of VMs: WebSockets joined to this terminal or to a local port."""
