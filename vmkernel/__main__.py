"""`python -m vmkernel`: read the command line, set up the log, run until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from vmkernel.options import Options, parse
from vmkernel.platform.programs import StartRefusedError
from vmkernel.service_manager import notify
from vmkernel.text import CleanFormatter
from vmkernel.wiring import Vmkernel

__all__ = ["main"]

_FORMAT = "%(levelname)s %(name)s: %(message)s"
_THREADS = 64
"""At most; made as they are needed."""


async def _run(options: Options) -> None:
    kernel = Vmkernel(options)
    loop = asyncio.get_running_loop()
    # Files of a server that is silent hold threads up for a while: there are others.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="files"))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, kernel.stop)
    await kernel.run()


def main(argv: list[str] | None = None) -> int:
    """Run one vmkernel; the exit status of the process."""
    options = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        stream=sys.stderr,
    )
    logging.getLogger().handlers[0].setFormatter(CleanFormatter(_FORMAT))
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        asyncio.run(_run(options))
    except StartRefusedError as error:
        return _refused(str(error))
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _refused(f"Mica can't start: {what}")
    return 0


def _refused(reason: str) -> int:
    """Report in the log, and to the parent process, why it can't start."""
    logging.getLogger("vmkernel").error("%s", reason)
    notify(f"X_MICA_REFUSED={reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
