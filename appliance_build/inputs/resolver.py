"""Ask apt which packages a set needs, in separate folders, without touching the host."""

import re
import tempfile
import urllib.parse
from pathlib import Path

from appliance_build.inputs.debian_lock import LockedPackage
from appliance_build.inputs.debian_sets import PackageSet
from appliance_build.inputs.errors import LockError
from appliance_build.inputs.mirror import Mirrors
from appliance_build.inputs.run import run

__all__ = ["Resolver"]

COMPONENTS = "main non-free-firmware"
KEYRINGS = Path("/usr/share/keyrings")
URI_LINE = re.compile(
    r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<hash>[0-9a-f]{64})$"
)

APT_CONF = """
Dir "{root}";
Dir::State "{root}";
Dir::State::status "{root}/status";
Dir::State::lists "{root}/lists";
Dir::Cache "{root}/cache";
Dir::Etc "{root}/etc";
Dir::Etc::sourcelist "{root}/etc/sources.list";
Dir::Etc::trustedparts "{keyrings}";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::Retries "3";
Acquire::http::Timeout "30";
"""


def suite_line(mirrors: Mirrors, suite: str) -> str:
    """Return apt's source line of a suite."""
    archive = "debian-security" if suite.endswith("-security") else "debian"
    return f"deb {mirrors.base(archive)} {suite} {COMPONENTS}\n"


class Resolver:
    """Resolves sets against what the mirror's suites hold now."""

    def __init__(self, mirrors: Mirrors) -> None:
        self._mirrors = mirrors

    def resolve(self, wanted: PackageSet) -> tuple[LockedPackage, ...]:
        """Return every package of a set with its hash, signatures checked by apt."""
        with tempfile.TemporaryDirectory(prefix="mica-apt-") as folder:
            root = Path(folder)
            for name in ("etc/apt.conf.d", "etc/preferences.d", "lists/partial"):
                (root / name).mkdir(parents=True)
            (root / "cache/archives/partial").mkdir(parents=True)
            (root / "status").touch()
            lines = "".join(suite_line(self._mirrors, suite) for suite in wanted.suites)
            (root / "etc/sources.list").write_text(lines)
            config = root / "apt.conf"
            config.write_text(APT_CONF.format(root=root, keyrings=KEYRINGS))
            env = {"APT_CONFIG": str(config)}
            run(["apt-get", "update", "--error-on=any"], timeout_s=600, env=env)
            verb = ["install", *wanted.packages]
            if wanted.whole_system:
                verb += ["?essential", "apt"]
            output = run(["apt-get", "-qq", "--print-uris", "--yes", *verb], timeout_s=120, env=env)
        packages = []
        for line in output.splitlines():
            found = URI_LINE.match(line)
            if not found:
                continue
            archive, path = self._mirrors.split(found["uri"])
            name, version, architecture = found["file"].removesuffix(".deb").split("_")
            packages.append(
                LockedPackage(
                    name=name,
                    version=urllib.parse.unquote(version),
                    architecture=architecture,
                    archive=archive,
                    path=path,
                    size=int(found["size"]),
                    sha256=found["hash"],
                )
            )
        if not packages:
            raise LockError(f"apt named no package for the set {wanted.name}:\n{output[-500:]}")
        names = {package.name for package in packages}
        if wanted.whole_system:
            return tuple(sorted(packages))
        asked = {package.split("/")[0] for package in wanted.packages}
        if not asked <= names:
            raise LockError(f"set {wanted.name}: apt left out {sorted(asked - names)}")
        return tuple(sorted(package for package in packages if package.name in asked))
