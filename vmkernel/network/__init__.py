"""Virtual switches and port groups, and the ports of VMs on them; it must not touch QEMU."""

from vmkernel.network.bridge import BridgeNetwork
from vmkernel.network.policy import HostIdentity, PortPolicy
from vmkernel.network.ports import DEFAULT_PORT_GROUP, NetworkPort, PortGroup, VmNetwork
from vmkernel.network.user import UserNetwork

__all__ = [
    "BridgeNetwork",
    "DEFAULT_PORT_GROUP",
    "HostIdentity",
    "NetworkPort",
    "PortGroup",
    "PortPolicy",
    "UserNetwork",
    "VmNetwork",
]
