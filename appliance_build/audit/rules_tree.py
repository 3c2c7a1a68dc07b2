"""The tree is the manifest, file by file; and every symbolic link leads somewhere."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

from appliance_build.audit.tree import AuditTree, Finding, Node, Rule
from appliance_build.closure.manifest import ManifestFile

__all__ = ["RULES", "dangling_links", "differing", "missing", "unlisted"]

# Directories that are empty in the image and filled when it runs.
_RUNTIME = ("/dev/", "/proc/", "/run/", "/sys/", "/tmp/", "/var/")  # noqa: S108 - the image's


def unlisted(tree: AuditTree) -> Iterator[Finding]:
    """No path that the manifest does not name."""
    for node in tree.nodes:
        if node.path not in tree.manifest.files:
            yield Finding("unlisted", node.path, "is not in the manifest")


def missing(tree: AuditTree) -> Iterator[Finding]:
    """No path of the manifest that is not there."""
    present = {node.path for node in tree.nodes}
    for path in tree.manifest.files:
        if path not in present:
            yield Finding("missing", path, "is in the manifest and not in the image")


def differing(tree: AuditTree) -> Iterator[Finding]:
    """Every path is what the manifest says: kind, mode, size, hash, target."""
    for node in tree.nodes:
        listed = tree.manifest.files.get(node.path)
        if listed is not None:
            message = _difference(node, listed)
            if message is not None:
                yield Finding("differing", node.path, message)


def dangling_links(tree: AuditTree) -> Iterator[Finding]:
    """No symbolic link that leads nowhere, unless into a directory filled at run time."""
    for node in tree.nodes:
        if not node.is_link or tree.trees.resolve(node.path) is not None:
            continue
        target = os.readlink(node.source)
        absolute = os.path.normpath(os.path.join(os.path.dirname(node.path), target))
        if not absolute.startswith(_RUNTIME):
            yield Finding("dangling-link", node.path, f"leads to {target}, which is not there")


def _difference(node: Node, listed: ManifestFile) -> str | None:
    kind = "link" if node.is_link else "directory" if node.is_directory else "file"
    if kind != listed.kind:
        return f"is a {kind}, listed as a {listed.kind}"
    if kind == "link":
        target = os.readlink(node.source)
        return None if target == listed.target else f"leads to {target}, listed {listed.target}"
    mode = f"{stat.S_IMODE(node.mode):04o}"
    if mode != listed.mode:
        return f"has mode {mode}, listed {listed.mode}"
    if kind == "file":
        with node.source.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != listed.sha256:
                return "has other content than listed"
    return None


RULES: dict[str, Rule] = {
    "unlisted": unlisted,
    "missing": missing,
    "differing": differing,
    "dangling-link": dangling_links,
}
