"""From the first command to SCons."""

import os
from collections.abc import Sequence

from appliance_build.bootstrap.environment import python_environment
from appliance_build.bootstrap.host import become_root, prepare_host
from appliance_build.inputs.cache import cache_root
from appliance_build.inputs.errors import InputError
from appliance_build.inputs.mirror import find_mirrors
from appliance_build.progress import say
from appliance_build.release.version import REPOSITORY

__all__ = ["USAGE", "start"]

USAGE = """\
usage: python3 -m appliance_build TARGET [NAME=VALUE ...]

  run    build the stick image if needed, and power it on in QEMU
  test   run all tests

Sets up what the host lacks (as root or by sudo), then hands over to SCons;
every target of `scons -h` can be named. MICA_CACHE names the cache folder,
MICA_DEBIAN_MIRROR the Debian mirror, where the host's own are not wanted.
"""


def start(words: Sequence[str]) -> int:
    """Set up, then become ``scons WORDS``; returns only if that is not possible."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    try:
        become_root()
        prepare_host(cache_root())
        find_mirrors()
        python = python_environment() / "bin/python"
    except InputError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    os.chdir(REPOSITORY)
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": f"{python.parent}:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin",
    }
    argv = [str(python), "-m", "SCons", "-Q", *words]
    return os.execve(python, argv, environment)  # noqa: S606
