"""The process behind cloud_init.py: a guest without a kernel of its own, started again and again.

It runs in the tools tree's sandbox as `cloud_init_guest.py SEED=MAC,MAC… …`, one word for each
start; the disk (`/etc`, `/var`, `/home`) stays from one start to the next. It has a network and a
host name of its own, and nothing of the host's can be written. Debian's cloud-init runs its four
stages as its units do; only how it finds and mounts a device is answered here: blkid is asked about
the image itself, and what xorriso reads from it lies in a folder.

The answer is a line `ANSWER […]`, one object a start.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["main"]

MS_BIND = 4096
STAGES = (["init", "--local"], ["init"], ["modules", "--mode=config"], ["modules", "--mode=final"])
CONFIG = {
    "users": ["default"],
    "disable_root": True,
    "datasource_list": ["NoCloud"],
    "disable_network_activation": True,
    "ssh_genkeytypes": [],
    "cloud_init_modules": ["bootcmd", "write-files", "set_hostname", "users-groups", "ssh"],
    "cloud_config_modules": ["set-passwords", "runcmd"],
    "cloud_final_modules": ["scripts-per-instance", "scripts-user"],
    "system_info": {
        "distro": "debian",
        "default_user": {"name": "debian", "lock_passwd": True, "shell": "/bin/sh"},
        "network": {"renderers": ["networkd"]},
    },
}
"""/etc/cloud/cloud.cfg; less than Debian's, which also installs packages and the like."""
SEED = Path("/tmp/seed")
SAID = Path("/var/said")
"""The messages of the user data's scripts, one file each."""


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def _mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    kind_name = kind.encode() if kind else None
    if libc.mount(source.encode(), target.encode(), kind_name, flags, None):
        raise OSError(ctypes.get_errno(), f"mount of {target}")


def _set_up() -> None:
    unshare: Callable[[int], None] = os.unshare  # type: ignore[attr-defined]  # Python 3.12
    unshare(os.CLONE_NEWNET | os.CLONE_NEWUTS)  # type: ignore[attr-defined]
    Path("/tmp/etc").mkdir()
    _run("cp", "-a", "/etc/.", "/tmp/etc")
    _mount("/tmp/etc", "/etc", None, MS_BIND)
    Path("/sys").mkdir()
    _mount("sysfs", "/sys", "sysfs")
    for folder in ("/home", "/etc/cloud/cloud.cfg.d", "/var/log", str(SAID)):
        Path(folder).mkdir(parents=True, exist_ok=True)
    Path("/etc/cloud/cloud.cfg").write_text(json.dumps(CONFIG))


def _probe(image: Path) -> dict[str, str]:
    lines = _run("blkid", "-p", "-o", "export", str(image)).splitlines()
    return dict(line.split("=", 1) for line in lines)


def _plug(macs: list[str]) -> None:
    """The cards that a start has."""
    for card in sorted(Path("/sys/class/net").glob("*[0-9]")):
        if card.exists():  # a wire goes with its card
            _run("ip", "link", "delete", card.name)
    for number, mac in enumerate(macs):
        name = f"ens{number + 1}"
        peer = ("type", "veth", "peer", "name", f"wire{number + 1}")
        _run("ip", "link", "add", name, "address", mac, *peer)


def _insert(image: Path) -> None:
    shutil.rmtree(SEED, ignore_errors=True)
    argv = ["xorriso", "-osirrox", "on", "-indev", str(image), "-extract", "/", str(SEED)]
    subprocess.run(argv, check=True, capture_output=True)


def _start(image: Path) -> None:
    from cloudinit import util  # type: ignore[import-not-found]
    from cloudinit.cmd import main  # type: ignore[import-not-found]
    from cloudinit.net import networkd  # type: ignore[import-not-found]

    probed = _probe(image)

    def find_devs_with(criteria: str) -> list[str]:
        key, value = criteria.split("=")
        return [str(image)] if probed.get(key) == value else []

    def mount_cb(_: str, callback: Callable[[str, Any], Any], data: object) -> Any:
        return callback(str(SEED), data)

    util.find_devs_with = find_devs_with
    util.mount_cb = mount_cb
    networkd.available = lambda _: True
    for words in STAGES:
        sys.argv = ["cloud-init", *words]
        try:
            main.main(sys.argv)
        except SystemExit as end:
            if end.code:
                print(f"cloud-init {words} ended with {end.code}", flush=True)


def _judge(name: str, path: Path, kind: str) -> str:
    """What cloud-init's validator says about a file: nothing if it is right."""
    from cloudinit.config import schema  # type: ignore[import-not-found]

    if not path.exists():
        return f"there is no {name}"
    try:
        kind_of = schema.SchemaType(kind)
        schema.validate_cloudconfig_file(
            str(path),
            schema.get_schema(kind_of),
            kind_of,
            instance_data_path="/run/cloud-init/instance-data.json",
        )
    except (schema.SchemaValidationError, ValueError, RuntimeError) as error:
        return str(error)
    return ""


def _text(path: str) -> str:
    return Path(path).read_text(errors="replace")


def _look(image: Path) -> dict[str, Any]:
    stages = json.loads(_text("/var/lib/cloud/data/status.json"))["v1"]
    found = [stage for stage in stages.values() if isinstance(stage, dict)]
    errors = [str(error) for stage in found for error in stage.get("errors", [])]
    for stage in found:
        for level, lines in stage.get("recoverable_errors", {}).items():
            errors += [f"{level}: {line}" for line in lines]
    data = json.loads(_text("/run/cloud-init/instance-data.json"))
    shadow = [line.split(":") for line in _text("/etc/shadow").splitlines()]
    users = {name: hashed for name, hashed, *_ in shadow if Path("/home", name).is_dir()}
    keys = {
        path.parts[2]: path.read_text().splitlines()
        for path in Path("/home").glob("*/.ssh/authorized_keys")
    }
    cards = {
        path.name: (path / "address").read_text().strip()
        for path in Path("/sys/class/net").iterdir()
        if not re.match("lo$|wire", path.name)
    }
    network = Path("/etc/systemd/network")
    return {
        "label": _probe(image).get("LABEL"),
        "files": sorted(path.name for path in SEED.iterdir()),
        "errors": sorted(set(errors)),
        "instance_id": _text("/var/lib/cloud/data/instance-id").strip(),
        "hostname": os.uname().nodename,
        "meta_data": data["ds"]["meta_data"],
        "password_hashes": users,
        "authorized_keys": keys,
        "cards": cards,
        "network_units": {path.name: path.read_text() for path in network.glob("*cloud-init*")},
        "said": {path.name: path.read_text() for path in SAID.iterdir()},
        "judged": {
            "user-data": _judge("user-data", SEED / "user-data", "cloud-config"),
            "merged": _judge(
                "cloud-config",
                Path("/var/lib/cloud/instance/cloud-config.txt"),
                "cloud-config",
            ),
            "network-config": _judge("network-config", SEED / "network-config", "network-config"),
        },
    }


def _in_a_process(work: Callable[[], object]) -> Any:
    """The outcome of `work` in a child of ours: cloud-init keeps what it knows in its modules."""
    end, other = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(other, json.dumps(work()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    os.close(other)
    with os.fdopen(end) as answer:
        text = answer.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(1)
    return json.loads(text)


def main() -> None:
    """Start once for each argument."""
    _set_up()
    answers = []
    for word in sys.argv[1:]:
        path, _, macs = word.partition("=")
        image = Path(path)
        shutil.rmtree("/run", ignore_errors=True)
        Path("/run").mkdir()
        _plug([mac for mac in macs.split(",") if mac])
        _insert(image)
        _in_a_process(lambda image=image: _start(image))  # type: ignore[misc]
        answers.append(_in_a_process(lambda image=image: _look(image)))  # type: ignore[misc]
    print(f"\nANSWER {json.dumps(answers)}")


if __name__ == "__main__":
    main()
