"""The ``run`` target, and the client's command beside the image."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance_build.builders.support import action, phony
from appliance_build.release.version import REPOSITORY

__all__ = ["add_machine_targets"]


class RunError(ValueError):
    """The machine did not start or did not stop; it has reported the reason itself."""


def add_machine_targets(
    env: Any, build: Path, nodes: dict[str, Any], arguments: Mapping[str, str]
) -> None:
    def client(targets: list[Path], _: list[Path]) -> None:
        targets[0].write_text(
            "#!/bin/sh\n"
            "# The `mica` command of this checkout.\n"
            f'PYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -B -m remote_api.client "$@"\n'
        )
        targets[0].chmod(0o755)

    command = env.Command(
        str(build / "mica"),
        [env.Value(sys.executable), env.Value(str(REPOSITORY))],
        action(env, "making the mica command", client),
    )

    def run(_: list[Path], __: list[Path]) -> None:
        argv = [sys.executable, "-m", "appliance_build.machine", f"--build={build}"]
        argv += [f"--port={arguments['PORT']}"] if "PORT" in arguments else []
        argv += [f"--memory={arguments['MEMORY']}"] if "MEMORY" in arguments else []
        argv += ["--fresh"] if arguments.get("FRESH") else []
        # Ctrl-C is for the machine, which powers off cleanly; SCons waits for it. (To ignore the
        # signal would have the child ignore it too.)
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            status = subprocess.run(argv, cwd=REPOSITORY, check=False).returncode
        finally:
            signal.signal(signal.SIGINT, before)
        if status != 0:
            raise RunError("the run has failed")

    phony(
        env,
        "run",
        [nodes["stick"], nodes["tools"], command],
        action(env, "running the stick in QEMU", run),
        text="power the stick on in QEMU (PORT=8443 MEMORY=4096 FRESH=1); Ctrl-C powers it off",
    )
