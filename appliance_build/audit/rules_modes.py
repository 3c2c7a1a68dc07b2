"""No privileges stored in files: setuid, setgid, file capabilities; no device files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from appliance_build.audit.tree import AuditTree, Finding, Rule

__all__ = ["RULES", "file_capabilities", "setuid", "special_files", "world_writable"]


def setuid(tree: AuditTree) -> Iterator[Finding]:
    """No setuid or setgid bit on anything."""
    for node in tree.nodes:
        if node.mode & stat.S_ISUID and not node.is_link:
            yield Finding("setuid", node.path, "has the setuid bit")
        if node.mode & stat.S_ISGID and not node.is_link:
            yield Finding("setuid", node.path, "has the setgid bit")


def file_capabilities(tree: AuditTree) -> Iterator[Finding]:
    """No file capabilities."""
    for node in tree.files:
        try:
            os.getxattr(node.source, "security.capability", follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
        else:
            yield Finding("file-capability", node.path, "has file capabilities")


def world_writable(tree: AuditTree) -> Iterator[Finding]:
    """Nothing is world-writable except directories with the sticky bit."""
    for node in tree.nodes:
        sticky = node.is_directory and node.mode & stat.S_ISVTX
        if node.mode & stat.S_IWOTH and not node.is_link and not sticky:
            yield Finding("world-writable", node.path, "may be written by everybody")


def special_files(tree: AuditTree) -> Iterator[Finding]:
    """Nothing but files, directories and symbolic links."""
    for node in tree.nodes:
        if not (node.is_file or node.is_directory or node.is_link):
            yield Finding("special-file", node.path, "is a device, pipe or socket")


RULES: dict[str, Rule] = {
    "setuid": setuid,
    "file-capability": file_capabilities,
    "world-writable": world_writable,
    "special-file": special_files,
}
