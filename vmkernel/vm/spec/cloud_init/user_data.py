"""How cloud-init interprets user data: their kind, and what it would drop or fail on.

The rules are those of cloud-init 22.4 to 25 (cloudinit/user_data.py, handlers/*.py, templater.py):

MIME       if `mime-version:` is within the first 4096 bytes, in any letter case; a `From ` line
           before the headers is skipped, a blank line before them is not
otherwise  by the first words, in any letter case and after any blank space
then       each handler has rules of its own: the kernel wants a script's `#!` at the very
           beginning, a boothook's and a JSON patch's mark are removed only in lower case, and a
           template's mark must be the whole first line
"""

from __future__ import annotations

import re
from email import message_from_string
from email.message import Message

from vmkernel.vm.spec.cloud_init.yaml_text import yaml_fault

__all__ = ["kind_of", "user_data_fault"]

_KINDS = (
    ("#cloud-config-archive", "cloud-config-archive"),
    ("#cloud-config-jsonp", "cloud-config-jsonp"),
    ("#cloud-config", "cloud-config"),
    ("#include-once", "x-include-once-url"),
    ("#include", "x-include-url"),
    ("#cloud-boothook", "cloud-boothook"),
    ("#part-handler", "part-handler"),
    ("## template: jinja", "jinja2"),
    ("#!", "x-shellscript"),
)
"""First words of user data and what they mean, longest first."""
_PER_EVENT = ("x-shellscript-per-boot", "x-shellscript-per-instance", "x-shellscript-per-once")
_SCRIPTS = ("x-shellscript", *_PER_EVENT)
_HANDLED = frozenset(f"text/{kind}" for kind in (*(kind for _, kind in _KINDS), *_PER_EVENT))
_EXAMINED = frozenset({"text/plain", "text/x-not-multipart", "text/x-shellscript"})
"""Types of MIME parts whose content cloud-init reads to find the real type."""
_COMPRESSED = re.compile(r"application/(x-)?(gzip|gunzip|compress)(-compressed|ped|ed)?\Z")
_YAML = {"cloud-config": True, "cloud-config-archive": False}
"""Kinds that are read as YAML, and whether that has to be a mapping."""
_BLANKS = dict.fromkeys(_YAML, " \t\r\n\x85\u2028\u2029") | {"part-handler": " \t\r\n\f"}
"""What YAML and Python accept as blank space before the mark; anything else is content to them."""
_TEMPLATES = ("cloud-config", "cloud-config-jsonp", "x-shellscript")
"""What a template may become."""
_TEMPLATE_LINE = re.compile(r"##\s*template:\s*jinja\s*", re.IGNORECASE)
_LOOKS_LIKE_MIME = re.compile(r"^content-type:\s*multipart/", re.IGNORECASE | re.MULTILINE)
_MIME_BYTES = 4096
_MARKS = "`#cloud-config`, `#!`, `#include`, `#cloud-boothook` or another mark of cloud-init's"


def kind_of(text: str) -> str | None:
    """The subtype of user data in `text/`, `mixed` for a MIME message, None for what cloud-init
    doesn't know."""
    return "mixed" if _is_mime(text) else _kind_by_first_words(text)


def user_data_fault(text: str) -> str | None:
    """Why cloud-init would drop or fail on user data, in words; None if it takes them."""
    if text.startswith("\ufeff"):
        return "It begins with a byte order mark, which hides its first line: save it without one."
    if _is_mime(text):
        return _message_fault(message_from_string(text))
    kind = _kind_by_first_words(text)
    if kind is not None:
        return _part_fault(kind, text)
    if _LOOKS_LIKE_MIME.search(text[:_MIME_BYTES]):
        return (
            "It is a MIME message without `MIME-Version: 1.0` in its header; cloud-init needs that."
        )
    return (
        f"It must begin with {_MARKS}; guests ignore anything else. For Talos, Ignition or"
        " cloudbase-init, set `format` to `any`."
    )


def _is_mime(text: str) -> bool:
    return b"mime-version:" in text.encode()[:_MIME_BYTES].lower()


def _kind_by_first_words(text: str) -> str | None:
    first = text.lower().lstrip()
    return next((kind for mark, kind in _KINDS if first.startswith(mark)), None)


def _message_fault(message: Message) -> str | None:
    parts = [part for part in message.walk() if part.get_content_maintype() != "multipart"]
    if not parts:
        return "It is a MIME message without parts; check its boundary."
    found = [(_type_of(part), _text_of(part)) for part in parts]
    knows_more = any(kind == "text/part-handler" for kind, _ in found)
    for number, (kind, text) in enumerate(found, 1):
        where = f"Part {number}: " if message.is_multipart() else ""
        if kind in _HANDLED:
            fault = _part_fault(kind.removeprefix("text/"), text)
            if fault is not None:
                return where + fault
        elif not knows_more and not _COMPRESSED.match(kind):
            return (
                f"{where}cloud-init ignores the type {kind}; give the part a type such as"
                f" text/cloud-config, or let its content begin with {_MARKS}."
            )
    return None


def _type_of(part: Message) -> str:
    kind = part.get_content_type()
    if kind in _EXAMINED and (found := _kind_by_first_words(_text_of(part))) is not None:
        return f"text/{found}"
    return kind


def _text_of(part: Message) -> str:
    data = part.get_payload(decode=True)
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else ""


def _part_fault(kind: str, text: str) -> str | None:
    if kind in _SCRIPTS:
        return None if text.startswith("#!") else _script_fault(text)
    if kind == "cloud-boothook":
        if text.removeprefix("#cloud-boothook").lstrip().startswith("#!"):
            return None
        return (
            "A boothook begins with `#cloud-boothook` in lower case, with nothing before it, and"
            " the next line with `#!`; guests can't run another."
        )
    if kind == "cloud-config-jsonp":
        first = text.lstrip()
        if first.startswith("#cloud-config-jsonp") or not _kind_by_first_words(first):
            return None
        return "`#cloud-config-jsonp` must be in lower case."
    if kind == "jinja2":
        return _template_fault(text)
    if kind in _BLANKS:
        before = text[: len(text) - len(text.lstrip())]
        if before.strip(_BLANKS[kind]):
            return "It has an invisible character before its first line: remove that."
    return yaml_fault(text, mapping=_YAML[kind]) if kind in _YAML else None


def _script_fault(text: str) -> str:
    if text.lstrip().startswith("#!"):
        return "The `#!` of a script must be its very first characters: remove what is before it."
    return "A script must begin with `#!`; guests can't run another."


def _template_fault(text: str) -> str | None:
    first, _, rest = text.partition("\n")
    if not _TEMPLATE_LINE.fullmatch(first):
        return "`## template: jinja` must be alone on the first line, with nothing before it."
    if rest.lstrip().startswith("{"):  # only rendering shows what it becomes
        return None
    kind = _kind_by_first_words(rest)
    if kind not in _TEMPLATES:
        return (
            "After `## template: jinja`, the next line must begin with `#cloud-config` or `#!`;"
            " guests ignore anything else."
        )
    return _part_fault(kind, rest)
