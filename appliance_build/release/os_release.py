"""Write ``os-release``: the name by which systemd and the loader show the system."""

from pathlib import Path

from appliance_build.release.version import release_version

__all__ = ["write_os_release"]


def write_os_release(target: Path) -> None:
    version = release_version()
    target.write_text(
        'NAME="Mica"\n'
        "ID=mica\n"
        "ID_LIKE=debian\n"
        f'VERSION_ID="{version}"\n'
        f'IMAGE_VERSION="{version}"\n'
        "IMAGE_ID=mica\n"
        f'PRETTY_NAME="Mica {version}"\n'
    )
