"""``python3 -m appliance_build.machine``: power the built stick on (what ``scons run`` does)."""

import argparse
import sys
from pathlib import Path

from appliance_build.inputs.errors import InputError
from appliance_build.machine.session import RunOptions, RunSession
from appliance_build.progress import say


def main(words: list[str]) -> int:
    """Run one machine; 0 if it came up and went down as it should."""
    parser = argparse.ArgumentParser(prog="appliance_build.machine", description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8443)
    parser.add_argument("--memory", type=int, default=4096, metavar="MIB")
    parser.add_argument("--fresh", action="store_true", help="forget the state of earlier runs")
    given = parser.parse_args(words)
    options = RunOptions(
        tools=Path((given.build / "tools.path").read_text().strip()),
        image=given.build / "mica.img",
        folder=given.build / "run",
        client=given.build / "mica",
        port=given.port,
        memory_mib=given.memory,
        fresh=given.fresh,
    )
    try:
        RunSession(options).run()
    except (InputError, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
