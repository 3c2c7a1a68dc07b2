"""``python3 -m appliance_build TARGET``: set up the host, then SCons."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (an older one shall say so)
    sys.exit("mica: Python 3.11 or newer is needed (Debian 12 has it)")

from appliance_build.bootstrap.start import start

if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
