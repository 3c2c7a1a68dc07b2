"""The host's own place in the network: settings as networkd's files, and news of addresses.

Links, bond and switch are in the image (`rootfs/usr/lib/systemd/network`). Only the host's own
interface is written here, once the settings are known, so that a host with a fixed address never
asks for another one. That interface is the switch itself, or a VLAN on it.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from pathlib import Path

from vmkernel.host.link_address import fix_hardware_address, hardware_address_is_fixed
from vmkernel.host.sysfs import SYS, read_int, read_text, subfolders
from vmkernel.host.system import System
from vmkernel.model import MicaError
from vmkernel.platform.links import is_wired_port
from vmkernel.state import NetworkSettings

__all__ = [
    "MANAGEMENT_VLAN",
    "ManagementNetwork",
    "SWITCH",
    "choose_mac",
    "network_files",
    "wired_ports",
]

_log = logging.getLogger(__name__)

SWITCH = "vswitch0"
UPLINK = "bond0"
MANAGEMENT_VLAN = "management"

_FILES = (
    "10-vswitch0.network",
    "10-management.netdev",
    "10-management.network",
    "20-bond0.network",
)
_HEAD = "# Written by the vmkernel from the host's configuration.\n"

_DYNAMIC = """\
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6
IPv6PrivacyExtensions=no
KeepConfiguration=dhcp-on-stop
"""
_DHCP_SECTIONS = """
[DHCPv4]
ClientIdentifier=mac
UseDomains=no
UseHostname=no
UseTimezone=no
SendRelease=no

[DHCPv6]
UseDomains=no
UseHostname=no

[IPv6AcceptRA]
UseDomains=no
"""


def wired_ports(sys: Path = SYS) -> dict[str, str]:
    """The hardware addresses of the wired ports and their places in the machine,
    in a fixed order.
    """
    found = {}
    for name in subfolders(sys / "class/net"):
        folder = sys / "class/net" / name
        if is_wired_port(name, sys):
            mac = read_text(folder / "bonding_slave/perm_hwaddr") or read_text(folder / "address")
            if mac:
                found[mac] = str((folder / "device").resolve())
    return dict(sorted(found.items(), key=lambda item: _natural(item[1])))


def choose_mac(ports: dict[str, str], remembered: str | None) -> str | None:
    """The management address: the remembered one if its port exists, else the first port's."""
    if remembered in ports:
        return remembered
    return next(iter(ports), None)


def network_files(settings: NetworkSettings, mac: str | None) -> dict[str, str]:
    """networkd's files by name."""
    link = "\n[Link]\nRequiredForOnline=no\n" + (f"MACAddress={mac}\n" if mac else "")
    if settings.vlan is None:
        text = f"{_HEAD}[Match]\nName={SWITCH}\n{link}{_addressing(settings)}"
        return {"10-vswitch0.network": text}
    vlan = settings.vlan
    filtering = f"\n[BridgeVLAN]\nVLAN=1\nPVID=1\nEgressUntagged=1\n\n[BridgeVLAN]\nVLAN={vlan}\n"
    return {
        "10-vswitch0.network": f"{_HEAD}[Match]\nName={SWITCH}\n{link}\n[Network]\n"
        f"VLAN={MANAGEMENT_VLAN}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n{filtering}",
        "10-management.netdev": f"{_HEAD}[NetDev]\nName={MANAGEMENT_VLAN}\nKind=vlan\n\n"
        f"[VLAN]\nId={vlan}\n",
        "10-management.network": f"{_HEAD}[Match]\nName={MANAGEMENT_VLAN}\n\n"
        f"[Link]\nRequiredForOnline=no\n{_addressing(settings)}",
        "20-bond0.network": f"{_HEAD}[Match]\nName={UPLINK}\n\n[Link]\nRequiredForOnline=no\n\n"
        f"[Network]\nBridge={SWITCH}\nLinkLocalAddressing=no\nLLDP=no\nEmitLLDP=no\n{filtering}",
    }


class ManagementNetwork:
    """Writes the settings and keeps /etc/resolv.conf in line with settings and DHCP."""

    def __init__(
        self,
        system: System,
        *,
        run: Path = Path("/run/systemd"),
        etc: Path = Path("/etc"),
        sys: Path = SYS,
    ) -> None:
        self._system = system
        self._run = run
        self._etc = etc
        self._sys = sys
        self._settings = NetworkSettings()
        self._mac: str | None = None

    @property
    def interfaces(self) -> tuple[str, ...]:
        """The host's own interfaces."""
        return (MANAGEMENT_VLAN,) if self._settings.vlan is not None else (SWITCH,)

    async def apply(self, settings: NetworkSettings, mac: str | None) -> None:
        """Apply the settings; what is right already is left alone. HostError."""
        self._settings = settings
        self._mac = mac
        self.fix_address()
        files = network_files(settings, mac)
        changed = False
        for name in _FILES:
            path = self._run / "network" / name
            if name in files:
                changed |= self._system.write(path, files[name])
            else:
                changed |= self._system.remove(path)
        if changed:
            await self._system.reload_network()
        time_conf = self._run / "timesyncd.conf.d/50-mica.conf"
        if settings.ntp_servers:
            text = f"{_HEAD}[Time]\nNTP={' '.join(settings.ntp_servers)}\n"
            changed = self._system.write(time_conf, text)
        else:
            changed = self._system.remove(time_conf)
        if changed:
            await self._system.restart_time_sync()
        self.sync_resolver()

    def fix_address(self) -> None:
        """Keep the switch's address, whatever VMs are connected to it.

        networkd doesn't set an address that is right already, and the switch would change it with
        its next port.
        """
        if self._mac is None:
            self._mac = choose_mac(wired_ports(self._sys), None)
        if self._mac is None or not (self._sys / "class/net" / SWITCH).exists():
            return
        if not hardware_address_is_fixed(SWITCH, self._mac, self._sys):
            try:
                fix_hardware_address(SWITCH, self._mac)
            except OSError as error:
                _log.warning("%s can't be given the address %s: %s", SWITCH, self._mac, error)

    def sync_resolver(self) -> None:
        """Bring /etc/resolv.conf up to date."""
        servers = list(self._settings.nameservers)
        for server in _from_networkd(self._run / "netif/state"):
            if server not in servers:
                servers.append(server)
        text = _HEAD + "".join(f"nameserver {server}\n" for server in servers[:3])
        try:
            self._system.write(self._etc / "resolv.conf", text)
        except MicaError as error:
            _log.warning("%s", error)

    def has_carrier(self) -> bool:
        """True if a wired port has a link."""
        return any(
            read_int(self._sys / "class/net" / name / "carrier") == 1
            for name in subfolders(self._sys / "class/net")
            if is_wired_port(name, self._sys)
        )


def _addressing(settings: NetworkSettings) -> str:
    """The `[Network]` section and what follows it."""
    if not settings.addresses:
        body = _DYNAMIC + "".join(f"DNS={server}\n" for server in settings.nameservers)
        return f"\n[Network]\n{body}LLDP=no\nEmitLLDP=no\n{_DHCP_SECTIONS}"
    versions = {ipaddress.ip_interface(address).version for address in settings.addresses}
    lines = ["", "[Network]", "DHCP=no", "LinkLocalAddressing=ipv6"]
    lines.append(f"IPv6AcceptRA={'no' if 6 in versions else 'yes'}")
    lines += [f"Address={address}" for address in settings.addresses]
    lines += [f"Gateway={gateway}" for gateway in settings.gateways]
    lines += [f"DNS={server}" for server in settings.nameservers]
    lines += ["IPv6PrivacyExtensions=no", "LLDP=no", "EmitLLDP=no", ""]
    return "\n".join(lines)


def _from_networkd(state: Path) -> tuple[str, ...]:
    for line in (read_text(state) or "").splitlines():
        if line.startswith("DNS="):
            return tuple(entry.partition("#")[0] for entry in line[4:].split())
    return ()


def _natural(text: str) -> list[tuple[int, str]]:
    """A key that puts slot 10 behind slot 9."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]
