"""`python -m remote_api.client`: the `mica` command where it is not installed as one."""

from remote_api.client.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
