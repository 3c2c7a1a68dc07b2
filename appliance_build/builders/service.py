"""The targets around the build: ``flash``, ``why``, ``lock``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance_build.builders.flash import flash
from appliance_build.builders.support import action, phony
from appliance_build.closure import Manifest, explain
from appliance_build.inputs.locked_set import refresh_lock
from appliance_build.inputs.wheel_locks import refresh_wheel_locks

__all__ = ["add_service_targets"]


def add_service_targets(env: Any, nodes: dict[str, Any], arguments: Mapping[str, str]) -> None:
    def why(_: list[Path], sources: list[Path]) -> None:
        name = arguments.get("FILE")
        if not name:
            raise ValueError("say which: scons why FILE=/usr/lib/...")
        print("\n".join(explain(Manifest.load(sources[0]), name)), file=sys.stdout)

    def lock(_: list[Path], __: list[Path]) -> None:
        refresh_lock()
        refresh_wheel_locks()

    def write(_: list[Path], sources: list[Path]) -> None:
        device = arguments.get("DEVICE")
        if not device:
            raise ValueError("say which: scons flash DEVICE=/dev/...")
        flash(sources[0], Path(device), force_serial=arguments.get("FORCE"))

    phony(
        env,
        "flash",
        nodes["stick"],
        action(env, "writing the stick", write),
        text="DEVICE=/dev/... writes the stick image (FORCE=serial for what it would refuse)",
    )
    phony(
        env,
        "why",
        nodes["manifest"],
        action(env, "why is this file in the image", why),
        text="FILE=/usr/lib/... tells why a file is in the image",
    )
    phony(env, "lock", [], action(env, "refreshing the locks", lock), text="refresh inputs' locks")
