"""The one way this package starts a program: argv list, no shell, closed stdin, a time-out."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance_build.inputs.errors import CommandError

__all__ = ["clean_environment", "run"]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a fixed environment; only proxies, pip's settings and the temporary folder pass."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.lower() in ("http_proxy", "https_proxy", "no_proxy")
        or name == "TMPDIR"
        or name.startswith("PIP_")
    }
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": os.environ.get("HOME", "/root"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        **passed,
        **(extra or {}),
    }


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    show: bool = False,
) -> str:
    """Run a program and return what it printed; a failure carries its last lines.

    With ``show`` its output goes to the terminal as it comes, and is not returned.
    """
    words = [str(word) for word in argv]
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT,
            env=clean_environment(env),
            cwd=cwd,
            text=True,
            errors="replace",
            # A group of its own: what it has started ends with it.
            process_group=0,
        )
    except FileNotFoundError as error:
        raise CommandError(words, 127, f"{words[0]}: not installed") from error
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                output, _ = process.communicate()
                raise CommandError(words, None, output or "") from error
            raise
    if process.returncode != 0:
        raise CommandError(words, process.returncode, output or "")
    return output or ""
