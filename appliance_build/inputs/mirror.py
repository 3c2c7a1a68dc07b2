"""Find the Debian mirror: the one the host itself uses, or the one in the environment.

``MICA_DEBIAN_MIRROR`` overrides the main archive, ``MICA_DEBIAN_SECURITY_MIRROR`` the security
archive (by default the main one's address with ``-security``).
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance_build.inputs.errors import MirrorError

__all__ = ["Archive", "Mirrors", "find_mirrors"]

MIRROR_VARIABLE = "MICA_DEBIAN_MIRROR"
SECURITY_VARIABLE = "MICA_DEBIAN_SECURITY_MIRROR"

Archive = str
"""An archive by its plain name: ``debian`` or ``debian-security``."""


@dataclass(frozen=True)
class Mirrors:
    """The addresses of the two archives, without a slash at the end."""

    debian: str
    security: str

    def base(self, archive: Archive) -> str:
        """Return the address of an archive by its name."""
        return self.security if archive == "debian-security" else self.debian

    def split(self, uri: str) -> tuple[Archive, str]:
        """Split a package's address into archive and path."""
        for archive in ("debian-security", "debian"):
            base = self.base(archive) + "/"
            if uri.startswith(base):
                return archive, uri[len(base) :]
        raise MirrorError(f"{uri} belongs to none of the mirrors in use")


def _one_line(text: str) -> Iterator[str]:
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) < 3 or words[0] != "deb":
            continue
        rest = words[1:]
        if rest[0].startswith("["):
            while rest and not rest[0].endswith("]"):
                rest = rest[1:]
            rest = rest[1:]
        if rest:
            yield rest[0]


def _deb822(text: str) -> Iterator[str]:
    for stanza in text.split("\n\n"):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = {
            name.strip().lower(): value.strip()
            for name, found, value in (line.partition(":") for line in lines)
            if found
        }
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" in fields.get("types", "").split():
            yield from fields.get("uris", "").split()


def _resolve(uri: str) -> str | None:
    """Follow apt's ``mirror+file:`` lists to their first line."""
    if uri.startswith("mirror+file:"):
        path = Path(uri.removeprefix("mirror+file:").replace("///", "/"))
        try:
            lines = path.read_text().splitlines()
        except OSError:
            return None
        uri = next((line.split()[0] for line in lines if line.strip()), "")
    return uri.rstrip("/") if uri.startswith(("http://", "https://")) else None


def find_mirrors(
    apt_folder: Path = Path("/etc/apt"), environment: Mapping[str, str] = os.environ
) -> Mirrors:
    """Return the mirrors to use, or raise an error that says what to set."""
    main = environment.get(MIRROR_VARIABLE, "").rstrip("/")
    security = environment.get(SECURITY_VARIABLE, "").rstrip("/")
    if not main:
        uris: list[str] = []
        parts = apt_folder / "sources.list.d"
        files = [apt_folder / "sources.list", *sorted(parts.glob("*.list"))]
        for path in files:
            if path.is_file():
                uris.extend(_one_line(path.read_text(errors="replace")))
        for path in sorted(parts.glob("*.sources")):
            uris.extend(_deb822(path.read_text(errors="replace")))
        known = [found for uri in uris if (found := _resolve(uri))]
        main = next((uri for uri in known if uri.endswith("/debian")), "")
        security = security or next((uri for uri in known if uri.endswith("/debian-security")), "")
    if not main:
        raise MirrorError(
            "this host's apt sources name no Debian mirror; set "
            f"{MIRROR_VARIABLE} to one (an address that ends in /debian)"
        )
    return Mirrors(debian=main, security=security or f"{main}-security")
