"""The rule for scripts: an executable text file needs the interpreter of its first line."""

from __future__ import annotations

from appliance_build.closure.plan import Entry, Reason
from appliance_build.closure.search import Search

__all__ = ["RuleScript", "shebang"]


def shebang(head: bytes) -> str | None:
    """The interpreter that the first line names; what ``env`` would look up counts as such."""
    if not head.startswith(b"#!"):
        return None
    words = head[2:].split(b"\n", 1)[0].decode("utf-8", "replace").split()
    if not words:
        return None
    if words[0].rsplit("/", 1)[-1] == "env" and len(words) > 1:
        named = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
        return f"/usr/bin/{named[0]}" if named else words[0]
    return words[0]


class RuleScript:
    """Takes the interpreter of an executable script."""

    def visit(self, search: Search, entry: Entry) -> None:
        if entry.source is None or not entry.mode & 0o111:
            return
        with entry.source.open("rb") as stream:
            interpreter = shebang(stream.read(256))
        if interpreter is not None:
            search.need(interpreter, Reason("script", entry.path, f"#!{interpreter}"))
