"""The rule for Python: the import closure of our packages, the wheels and the standard library.

Imports are read from the source, never by importing. Every import counts, at whatever depth and
under whatever condition, unless it can't run in the image (see
:mod:`appliance_build.closure.python_worker`) or a ``[[python_waiver]]`` cuts it. Imports by C code
are listed in ``[[python_hidden]]``. A module of our own that imports what isn't there fails the
build; elsewhere that is an optional import, and noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from appliance_build.closure.errors import ImportMissingError
from appliance_build.closure.plan import Entry, Origin, Reason
from appliance_build.closure.search import Search
from appliance_build.closure.tools import DonorPython
from appliance_build.closure.trees import PYTHON_SITE

__all__ = ["Located", "ModuleKind", "RulePython"]

# Names that the standard library puts into sys.modules itself: there is no file of the name.
_ALIASES = {"collections.abc": "_collections_abc", "os.path": "posixpath"}
_DATA_SKIPPED = (".md", ".pyi", ".pyc", ".typed")


class ModuleKind(StrEnum):
    """What an import leads to."""

    PACKAGE = "package"
    NAMESPACE = "namespace"
    MODULE = "module"
    EXTENSION = "extension"
    BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class Located:
    """The place of a module; `directories` is a package's own search path."""

    name: str
    kind: ModuleKind
    path: str | None
    directories: tuple[str, ...] = ()


class RulePython:
    """Takes the modules that the modules in the plan import."""

    def __init__(self, python: DonorPython) -> None:
        self._python = python
        short = ".".join(str(part) for part in python.version[:2])
        self.stdlib = f"/usr/lib/python{short}"
        self._path = (
            PYTHON_SITE,
            self.stdlib,
            f"{self.stdlib}/lib-dynload",
            "/usr/lib/python3/dist-packages",
        )
        tag = "".join(str(part) for part in python.version[:2])
        self._suffixes = (f".cpython-{tag}-x86_64-linux-gnu.so", ".abi3.so", ".so")
        self._located: dict[str, Located | None] = {}
        self._names: dict[str, frozenset[str]] = {}
        self.modules: dict[str, Located] = {}  # image path -> the module it is

    def visit(self, search: Search, entry: Entry) -> None:
        """Follow the imports of one module in the plan."""
        located = self.modules.get(entry.path)
        if located is None or entry.source is None:
            return
        for hidden in search.roots.python_hidden:
            if hidden.importer == located.name:
                for module in hidden.modules:
                    reason = Reason("python-hidden", entry.path, hidden.reason)
                    if not self.take(search, module, reason):
                        raise ImportMissingError(
                            f"{module}: named as hidden import of {located.name}"
                        )
        if located.kind is ModuleKind.EXTENSION:
            return
        own = entry.origin is Origin.OWN
        answer = self._python.ask({"do": "scan", "source": str(entry.source), "main_too": own})
        for module, names, level in answer["imports"]:
            self._import(search, entry, located, module, names, level)

    def take_root(
        self, search: Search, module: str, reason: Reason, exclude: tuple[str, ...]
    ) -> None:
        """Take a package, all its submodules and its data files, less what is excluded."""
        if not self.take(search, module, reason):
            raise ImportMissingError(f"{module}: root module is in no input tree")
        located = self._locate(search, module)
        if located is None:
            return
        for directory in located.directories:
            for name in search.trees.names(directory):
                self._take_below(search, module, directory, name, reason, exclude)

    def take(self, search: Search, module: str, reason: Reason) -> bool:
        """Take a module and its parent packages; False if there is no such module."""
        if module in _ALIASES:
            self.take(search, module.rpartition(".")[0], reason)
            return self.take(search, _ALIASES[module], reason)
        located = self._locate(search, module)
        if located is None:
            return False
        parent = module.rpartition(".")[0]
        if parent:
            self.take(search, parent, Reason("python-parent", located.path or module, parent))
        if located.path is not None and located.path not in search.entries:
            self.modules[located.path] = located
        if located.path is not None:
            search.need(located.path, reason)
        return True

    def _take_below(
        self,
        search: Search,
        package: str,
        directory: str,
        name: str,
        reason: Reason,
        exclude: tuple[str, ...],
    ) -> None:
        stem = name.removesuffix(".py")
        full = f"{package}.{stem}"
        if name in ("__pycache__", "__init__.py") or full in exclude:
            return
        path = f"{directory}/{name}"
        if search.trees.names(path):
            if self._locate(search, full) is not None and stem.isidentifier():
                located = self._locate(search, full)
                if located is not None and located.kind is ModuleKind.PACKAGE:
                    self.take(search, full, reason)
            for child in search.trees.names(path):
                self._take_below(search, full, path, child, reason, exclude)
        elif name.endswith(".py"):
            self.take(search, full, reason)
        elif not name.endswith(_DATA_SKIPPED):
            search.need(path, Reason("python-data", reason.of, f"data file of {package}"))

    def _import(
        self,
        search: Search,
        entry: Entry,
        located: Located,
        module: str,
        names: list[str],
        level: int,
    ) -> None:
        if level:
            base = located.name.split(".")
            drop = level - (1 if located.kind is ModuleKind.PACKAGE else 0)
            base = base[: len(base) - drop] if drop else base
            module = ".".join([*base, module] if module else base)
        if not module:
            return
        if self._waived(search, located.name, module):
            return
        reason = Reason("python-import", entry.path, module)
        if not self.take(search, module, reason):
            if entry.origin is Origin.OWN:
                raise ImportMissingError(
                    f"{entry.path}: imports {module}, which is in no input tree"
                )
            search.note(f"python: {module} is not there for {located.name}")
            return
        for name in names:
            full = f"{module}.{name}"
            if name != "*" and not self._waived(search, located.name, full):
                self.take(search, full, Reason("python-import", entry.path, full))

    def _waived(self, search: Search, importer: str, module: str) -> bool:
        for waiver in search.roots.python_waiver:
            if waiver.module != module and not module.startswith(waiver.module + "."):
                continue
            if waiver.importer is None or _within(importer, waiver.importer):
                search.note(f"python: {importer} goes without {module}: {waiver.reason}")
                return True
        return False

    def _locate(self, search: Search, module: str) -> Located | None:
        if module not in self._located:
            self._located[module] = self._find(search, module)
        return self._located[module]

    def _find(self, search: Search, module: str) -> Located | None:
        if module in self._python.builtins:
            return Located(module, ModuleKind.BUILTIN, None)
        parent, _, name = module.rpartition(".")
        directories: tuple[str, ...] = self._path
        if parent:
            package = self._locate(search, parent)
            if package is None:
                return None
            directories = package.directories
        spaces: list[str] = []
        for directory in directories:
            names = self._listing(search, directory)
            path = f"{directory}/{name}"
            if name in names:
                inner = self._listing(search, path)
                if "__init__.py" in inner:
                    return Located(module, ModuleKind.PACKAGE, f"{path}/__init__.py", (path,))
                if inner:
                    spaces.append(path)
            for suffix in self._suffixes:
                if name + suffix in names:
                    return Located(module, ModuleKind.EXTENSION, path + suffix)
            if name + ".py" in names:
                return Located(module, ModuleKind.MODULE, path + ".py")
        if spaces:
            return Located(module, ModuleKind.NAMESPACE, None, tuple(spaces))
        return None

    def _listing(self, search: Search, directory: str) -> frozenset[str]:
        if directory not in self._names:
            self._names[directory] = frozenset(search.trees.names(directory))
        return self._names[directory]


def _within(importer: str, package: str) -> bool:
    return importer == package or importer.startswith(package + ".")
