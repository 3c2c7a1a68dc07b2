"""What a VM's process really is allowed, held against its unit: template and drop-in.

The policy is what they say (`mica-vm@.service`, vmkernel/jail/drop_in.py); nothing of it is
repeated here but how each setting shows in /proc (proc(5), systemd.exec(5)).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

from tests.framework.repository import REPOSITORY

__all__ = ["Jailed", "Policy", "differences", "look_at"]

TEMPLATE = REPOSITORY / "appliance_build/image/rootfs/usr/lib/systemd/system/mica-vm@.service"
DROP_IN = "/run/systemd/system/mica-vm@{vm}.service.d/50-vm.conf"
CGROUPS = "/sys/fs/cgroup"
NAMESPACES = {
    "PrivatePIDs": "pid",
    "PrivateIPC": "ipc",
    "PrivateNetwork": "net",
    "PrivateUsers": "user",
    "ProtectHostname": "uts",
}
LIMITS = {
    "LimitNOFILE": "Max open files",
    "LimitCORE": "Max core file size",
    "LimitMEMLOCK": "Max locked memory",
    "LimitMSGQUEUE": "Max msgqueue size",
    "LimitNPROC": "Max processes",
}
OWN_DEVICES = {"fd", "full", "null", "ptmx", "random", "stderr", "stdin", "stdout", "tty", "zero"}
OWN_DEVICES |= {"urandom", "char", "core", "log", "shm", "mqueue", "hugepages", "pts"}
SYSTEMD = {"/run", "/run/host/.os-release-stage", "/run/systemd/incoming"}
"""What systemd puts into every root of a unit's own: root's, and either
read-only or without devices and set-user-id programs."""
HANDED = (
    r"(socket|pipe|anon_inode):.*|/memfd:.*|/dev/(null|kvm|net/tun|vhost-net|vhost-vsock|urandom)"
)


class Hand(Protocol):
    """What looks inside; the agent of variant.py."""

    def read(self, path: str) -> str:
        """A file's text."""

    def links(self, path: str) -> dict[str, str]:
        """Where the links in a folder lead."""

    def names(self, path: str) -> list[str]:
        """What is in a folder."""


@dataclass(frozen=True)
class Policy:
    """The settings of a unit: every value of each, in order."""

    settings: dict[str, list[str]]

    @classmethod
    def of(cls, *texts: str) -> Policy:
        """From unit files, the later ones adding to the earlier ones."""
        found: dict[str, list[str]] = defaultdict(list)
        for line in "\n".join(texts).splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith(("#", "[")):
                found[name].append(value.strip())
        return cls(dict(found))

    def last(self, name: str) -> str:
        """The value that counts."""
        return self.settings[name][-1]

    def on(self, name: str) -> bool:
        """True for a switch that is on."""
        return self.settings.get(name, ["no"])[-1] == "yes"

    def paths(self, name: str) -> dict[str, str]:
        """The bind mounts of a setting: where each is seen, and what it shows."""
        pairs = (value.partition(":") for value in self.settings.get(name, []))
        return {(seen or shown): shown for shown, _, seen in pairs}


@dataclass(frozen=True)
class Jailed:
    """A VM's process as /proc shows it."""

    vm: str
    policy: Policy
    status: dict[str, str]
    mounts: dict[str, frozenset[str]]
    """Options by place, as the process sees places."""
    files: tuple[str, ...]
    """What its descriptors lead to."""
    interfaces: tuple[str, ...]
    cgroup: str
    namespaces: dict[str, str]
    host_namespaces: dict[str, str]
    devices: tuple[str, ...]
    limits: dict[str, str]
    memory_max: str


def look_at(hand: Hand, vm: str, pid: int) -> Jailed:
    """Look at a process."""
    proc = f"/proc/{pid}"
    status = dict(line.split(":\t", 1) for line in hand.read(f"{proc}/status").splitlines())
    mounts = {}
    for line in hand.read(f"{proc}/mountinfo").splitlines():
        words = line.split()
        mounts[words[4]] = frozenset(words[5].split(","))
    limits = {}
    for line in hand.read(f"{proc}/limits").splitlines()[1:]:
        name, soft, _ = re.split(r"\s{2,}", line.strip())[:3]
        limits[name] = soft
    return Jailed(
        vm=vm,
        policy=Policy.of(TEMPLATE.read_text(), hand.read(DROP_IN.format(vm=vm))),
        status={name: value.strip() for name, value in status.items()},
        mounts=mounts,
        files=tuple(hand.links(f"{proc}/fd").values()),
        interfaces=tuple(
            line.split(":")[0].strip() for line in hand.read(f"{proc}/net/dev").splitlines()[2:]
        ),
        cgroup=hand.read(f"{proc}/cgroup").strip(),
        namespaces=hand.links(f"{proc}/ns"),
        host_namespaces=hand.links("/proc/1/ns"),
        devices=tuple(hand.names(f"{proc}/root/dev")),
        limits=limits,
        memory_max=hand.read(
            f"{CGROUPS}{hand.read(f'{proc}/cgroup').strip()[3:]}/memory.max"
        ).strip(),
    )


def differences(jailed: Jailed) -> list[str]:
    """How the process is allowed more than, or something else than, its unit says."""
    return [
        *_identity(jailed),
        *_mounts(jailed),
        *_files(jailed),
        *_surroundings(jailed),
    ]


def _identity(jailed: Jailed) -> list[str]:
    policy, status = jailed.policy, jailed.status
    uid = policy.last("User")
    expected = {"Uid": uid, "Gid": policy.last("Group")}
    wrong = [
        f"{name}: {status[name]}, not {number}"
        for name, number in expected.items()
        if set(status[name].split()) != {number}
    ]
    if set(status["Groups"].split()) - {policy.last("Group")}:
        wrong.append(f"it is in the groups {status['Groups']}")
    assert policy.last("CapabilityBoundingSet") == ""
    wrong += [
        f"{name} is {status[name]}"
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        if int(status[name], 16)
    ]
    if policy.on("NoNewPrivileges") and status["NoNewPrivs"] != "1":
        wrong.append("it may gain privileges")
    assert policy.settings["SystemCallFilter"]
    # That of the unit and that of the program, at the least.
    if status["Seccomp"] != "2" or int(status["Seccomp_filters"]) < 3:
        wrong.append(f"seccomp: mode {status['Seccomp']}, {status['Seccomp_filters']} filters")
    if int(policy.last("UMask"), 8) != int(status["Umask"], 8):
        wrong.append(f"umask {status['Umask']}")
    return wrong


def _mounts(jailed: Jailed) -> list[str]:
    policy = jailed.policy
    shown = policy.paths("BindReadOnlyPaths"), policy.paths("BindPaths")
    wrong = []
    for places, flag in zip(shown, ("ro", "rw"), strict=True):
        for place in places:
            options = jailed.mounts.get(place)
            if options is None:
                wrong.append(f"{place} is no mount of its own")
            elif flag not in options:
                wrong.append(f"{place} is not {flag}")
    if "ro" not in jailed.mounts["/"]:
        wrong.append("its root can be written to")
    hidden = [path.lstrip("-+") for v in policy.settings["InaccessiblePaths"] for path in v.split()]
    if policy.on("ProtectHome"):
        hidden += ["/home", "/root", "/run/user"]
    known = {"/", *shown[0], *shown[1], *hidden}
    for place, options in jailed.mounts.items():
        if place in known or re.match(r"/(proc|sys|dev)(/|$)", place):
            continue
        closed = "ro" in options or {"nodev", "nosuid"} <= options
        if place not in SYSTEMD or not closed:
            wrong.append(f"it has the mount {place} ({','.join(sorted(options))})")
    return wrong


def _files(jailed: Jailed) -> list[str]:
    policy = jailed.policy
    paths = {*policy.paths("BindReadOnlyPaths").values(), *policy.paths("BindPaths").values()}
    log = f"/run/mica/vm/{jailed.vm}/qemu.log"
    return [
        f"it holds {file}"
        for file in jailed.files
        if not re.fullmatch(HANDED, file)
        and file != log
        and not any(file == path or file.startswith(f"{path}/") for path in paths)
    ]


def _surroundings(jailed: Jailed) -> list[str]:
    policy = jailed.policy
    wrong = [
        f"it shares the host's {kind} namespace"
        for setting, kind in NAMESPACES.items()
        if policy.on(setting) and jailed.namespaces[kind] == jailed.host_namespaces[kind]
    ]
    if jailed.namespaces["mnt"] == jailed.host_namespaces["mnt"]:
        wrong.append("it shares the host's mounts")
    if set(jailed.interfaces) - {"lo"}:
        wrong.append(f"it sees the interfaces {jailed.interfaces}")
    assert policy.on("PrivateDevices")
    if extra := set(jailed.devices) - OWN_DEVICES:
        wrong.append(f"it sees the devices {sorted(extra)}")
    unit = f"mica-vm@{jailed.vm}.service"
    if jailed.cgroup.split("/")[-3:] != ["mica.slice", policy.last("Slice"), unit]:
        wrong.append(f"its cgroup is {jailed.cgroup}")
    for setting, name in LIMITS.items():
        if jailed.limits[name] != policy.last(setting):
            wrong.append(f"{name}: {jailed.limits[name]}, not {policy.last(setting)}")
    if jailed.memory_max != policy.last("MemoryMax"):
        wrong.append(f"its memory's limit is {jailed.memory_max}")
    return wrong
