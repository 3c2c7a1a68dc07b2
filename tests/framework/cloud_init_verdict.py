"""Runs under Debian's cloud-init: does it take each of some user data, and can the guest run what
it makes of them? A folder and a JSON list of texts in; prints ANSWER and a JSON list of reasons
against them, null if there is none.
"""

import json
import logging
import sys
from pathlib import Path

from cloudinit import handlers, helpers, user_data  # type: ignore[import-not-found]
from cloudinit.handlers import (  # type: ignore[import-not-found]
    boot_hook,
    cloud_config,
    jinja_template,
    shell_script,
    shell_script_by_frequency,
)

__all__ = ["main", "verdict"]


class Datasource:
    """As much of one as the handlers ask for."""

    def get_instance_id(self) -> str:
        return "i-1"


class Heard(logging.Handler):
    """Keeps warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def verdict(text: str, folder: Path, heard: Heard) -> str | None:
    """The first reason against a text."""
    heard.texts.clear()
    paths = helpers.Paths({"cloud_dir": str(folder), "run_dir": str(folder)}, Datasource())
    for name in (paths.get_ipath_cur("scripts"), paths.get_ipath("boothooks")):
        Path(name).mkdir(parents=True)
    Path(paths.get_runpath("instance_data_sensitive")).write_text('{"v1": {}}')
    options = {"paths": paths, "datasource": Datasource()}
    config, script = (
        cloud_config.CloudConfigPartHandler(**options),
        shell_script.ShellScriptPartHandler(**options),
    )
    known = helpers.ContentHandlers()
    for handler in (
        config,
        script,
        *(
            shell_script_by_frequency.ShellScriptByFreqPartHandler(each, **options)
            for each in ("always", "once-per-instance", "once")
        ),
        boot_hook.BootHookPartHandler(**options),
        jinja_template.JinjaTemplatePartHandler(**options, sub_handlers=[config, script]),
    ):
        known.register(handler)
    sys.path[0] = str(folder)  # cloud-init imports the parts' own handlers by name
    sys.modules.pop("part-handler-000", None)
    try:
        message = user_data.UserDataProcessor(paths).process(text.encode())
        data = {
            "handlers": known,
            "handlerdir": str(folder),
            "data": None,
            "frequency": "once-per-instance",
            "handlercount": 0,
            "excluded": [],
        }
        for handler in (config, script):
            handlers.call_begin(handler, data["data"], data["frequency"])
        handlers.walk(message, handlers.walker_callback, data=data)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if heard.texts:
        return heard.texts[0]
    if not message.get_payload():
        return "no part"
    for path in folder.rglob("part-*"):
        if path.is_file() and path.stat().st_mode & 0o100 and path.read_bytes()[:2] != b"#!":
            return "exec format error"
    return None


def main() -> None:
    heard = Heard()
    logging.getLogger().addHandler(heard)
    folder = Path(sys.argv[1])
    texts = json.loads(Path(sys.argv[2]).read_text())
    answers = [verdict(text, folder / str(number), heard) for number, text in enumerate(texts)]
    print(f"\nANSWER {json.dumps(answers)}")


if __name__ == "__main__":
    main()
