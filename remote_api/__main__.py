"""`python -m remote_api`."""

import sys

from remote_api.server.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
