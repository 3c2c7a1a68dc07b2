"""What the host must have, and installing what is missing."""

import os
import platform
import re
import shutil
import sys
from pathlib import Path

from appliance_build.inputs.errors import CommandError, InputError
from appliance_build.inputs.run import run
from appliance_build.progress import say, step

__all__ = ["HostError", "become_root", "missing_packages", "prepare_host"]

OLDEST_PYTHON = (3, 11)
FREE_BYTES = 12 << 30
"""Packages, trees, image and the tests' machines."""

NEEDED = {
    "apt": Path("/usr/bin/apt-get"),
    "ca-certificates": Path("/etc/ssl/certs/ca-certificates.crt"),
    # Tests run the API's examples by curl and openssl, as users do.
    "curl": Path("/usr/bin/curl"),
    # Debian 13 is signed with Debian 12's keys as well, and Ubuntu 24.04 has no later ones.
    "debian-archive-keyring": Path("/usr/share/keyrings/debian-archive-bookworm-automatic.gpg"),
    "mmdebstrap": Path("/usr/bin/mmdebstrap"),
    "openssl": Path("/usr/bin/openssl"),
}
"""Packages by a file that shows that they are there."""

PASSED_ON = re.compile(r"MICA_.*|PIP_.*|(?:https?|no)_proxy|TMPDIR", re.IGNORECASE)
"""What sudo would drop, by the variable's name."""


class HostError(InputError):
    """The host lacks something that can't be installed from here."""


def become_root() -> None:
    """Start this command again with sudo unless it is root's already."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        raise HostError("building needs root (mounts, device nodes): run this as root")
    say("building needs root; starting again with sudo")
    passed = [f"{k}={v}" for k, v in os.environ.items() if PASSED_ON.fullmatch(k)]
    argv = [sudo, "env", *passed, sys.executable, "-m", "appliance_build", *sys.argv[1:]]
    os.execv(sudo, argv)  # noqa: S606


def _check() -> None:
    if sys.version_info < OLDEST_PYTHON:
        found = platform.python_version()
        raise HostError(f"Python {found} is too old; 3.11 or newer is needed (Debian 12 has it)")
    if platform.machine() != "x86_64":
        raise HostError(f"this host is {platform.machine()}; Mica builds on x86-64")
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise HostError("this host has no apt; Mica builds on Debian 12 or newer")


def _has_venv() -> bool:
    try:
        import ensurepip
    except ImportError:
        return False
    return bool(ensurepip.version())


def missing_packages() -> list[str]:
    """Return the Debian packages that the host lacks."""
    missing = [name for name, path in NEEDED.items() if not path.exists()]
    if not _has_venv():
        missing.append("python3-venv")
    return missing


def prepare_host(cache: Path) -> None:
    _check()
    free = shutil.disk_usage(cache).free
    if free < FREE_BYTES:
        say(f"only {free / 1e9:.1f} GB are free below {cache}; about 12 GB will be used")
    missing = missing_packages()
    if not missing:
        return
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    with step(f"installing {', '.join(missing)}"):
        try:
            run(install, timeout_s=900, env=env)
        except CommandError:
            run(["apt-get", "update"], timeout_s=600, env=env)
            run(install, timeout_s=900, env=env)
    still = [name for name, path in NEEDED.items() if not path.exists()]
    if still:
        raise HostError(
            f"still missing after installing: {', '.join(str(NEEDED[name]) for name in still)}"
        )
