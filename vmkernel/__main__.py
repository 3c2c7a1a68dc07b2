"""`python -m vmkernel`: read the command line, set up the log, run until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from vmkernel.options import Options, parse
from vmkernel.wiring import Vmkernel

__all__ = ["main"]

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
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        asyncio.run(_run(options))
    except OSError as error:
        logging.getLogger("vmkernel").error("can't start: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
