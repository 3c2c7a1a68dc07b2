"""How a vmkernel is asked to run: the command line as a value."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmkernel.model import HostMode
from vmkernel.vm.assembly import AcceleratorWish

__all__ = ["Options", "parse"]

_APPLIANCE_RUN = Path("/run/mica")


@dataclass(frozen=True)
class Options:
    """Paths; everything else is the same in both modes."""

    mode: HostMode
    run_dir: Path
    """Sockets, and files that are lost at power-off."""
    control: Path
    """The control socket, if systemd passes none."""
    state_dir: Path | None = None
    """Hosted: persistent files."""
    state_device: Path | None = None
    """Appliance: the state partition, if it is not to be searched for."""
    accelerator: AcceleratorWish = AcceleratorWish.AUTO
    qemu: Path | None = None
    qemu_img: Path | None = None
    swtpm: Path | None = None
    qemu_dir: Path | None = None
    pull_from_loopback: bool = False
    """Images may be fetched from this very machine (hosted mode)."""
    stop_vms: bool = False
    """Shut the guests down before ending (hosted mode)."""
    boot_name: str | None = None
    """Hosted: names the run of `mica serve`, which starts VMs as a boot of a host does."""
    allowed_uids: frozenset[int] = frozenset()
    verbose: bool = False


def parse(argv: Sequence[str]) -> Options:
    """Read the command line; argparse ends the process if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="vmkernel", description="The hypervisor core of Mica.", allow_abbrev=False
    )
    parser.add_argument("--mode", choices=[m.value for m in HostMode], default="appliance")
    parser.add_argument("--state-dir", type=Path, help="hosted: the directory that lasts")
    parser.add_argument("--run-dir", type=Path, help="sockets; default: STATE_DIR/run")
    parser.add_argument(
        "--control", type=Path, help="control socket; default: RUN_DIR/control.sock"
    )
    parser.add_argument("--state-device", type=Path, help="appliance: the state partition")
    parser.add_argument(
        "--accelerator",
        type=AcceleratorWish,
        choices=list(AcceleratorWish),
        default=AcceleratorWish.AUTO,
        help="what guests run with; auto: KVM if a probe shows that it works",
    )
    parser.add_argument("--qemu", type=Path, help="qemu-system-x86_64 to use")
    parser.add_argument("--qemu-img", type=Path, help="qemu-img to use")
    parser.add_argument("--swtpm", type=Path, help="swtpm to use")
    parser.add_argument("--qemu-dir", type=Path, help="directory of QEMU's firmware files")
    parser.add_argument("--allow-user", action="append", default=[], metavar="NAME")
    parser.add_argument(
        "--pull-from-loopback",
        action="store_true",
        help="hosted: images may be fetched from this machine itself",
    )
    parser.add_argument("--stop-vms", action="store_true", help="end the guests first")
    parser.add_argument("--boot-name", help="hosted: VMs with autostart are started once for it")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args(argv)
    mode = HostMode(given.mode)
    users: list[str] = given.allow_user
    if mode is HostMode.HOSTED:
        if given.state_dir is None:
            parser.error("hosted mode needs --state-dir")
        run_dir = given.run_dir or given.state_dir / "run"
    else:
        run_dir = given.run_dir or _APPLIANCE_RUN
        users = users or ["mica-api"]
    run_dir = run_dir.resolve()  # what lies there is opened without following links
    return Options(
        mode=mode,
        run_dir=run_dir,
        control=(given.control or run_dir / "control.sock").absolute(),
        state_dir=None if given.state_dir is None else given.state_dir.resolve(),
        state_device=given.state_device,
        accelerator=given.accelerator,
        qemu=given.qemu,
        qemu_img=given.qemu_img,
        swtpm=given.swtpm,
        qemu_dir=given.qemu_dir,
        pull_from_loopback=given.pull_from_loopback and mode is HostMode.HOSTED,
        stop_vms=given.stop_vms,
        boot_name=given.boot_name,
        allowed_uids=frozenset({0, os.getuid(), *map(_uid, users)}),
        verbose=given.verbose,
    )


def _uid(name: str) -> int:
    import pwd

    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return os.getuid()
