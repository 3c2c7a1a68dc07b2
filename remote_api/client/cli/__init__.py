"""The `mica` command: it turns the command line into calls of the SDK, and does no HTTP itself.

exit status   0  done
              1  the host refused, or an operation failed
              2  the command line is wrong
              3  the host can't be reached, or did not answer in time
              4  the host's certificate is not the pinned one
            130  interrupted
"""

from remote_api.client.cli.root import main

__all__ = ["main"]
