"""The OpenAPI document by an outside linter's strictest rules, and by the conventions of this API.

Redocly's CLI runs in the generators' tree, which has no network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.framework.generators import NODE, in_generators_tree
from tests.framework.npm import NpmPackage, unpacked_package
from tests.framework.openapi import DOCUMENT

REDOCLY = NpmPackage(
    "@redocly/cli",
    "2.77.0",
    "XUa4hURDWLPG9WukIXo+UBqa9VpeTndmLI5PHu9QDkwtwH990Jsgz9nl2m1pZjsWrKFPP7avn6etRxxDbuD2Bg==",
)
CONFIG = "extends: [recommended-strict]\ntelemetry: off\n"
KNOWN = {("operation-2xx-response", "#/paths/~1v1~1vms~1{id}~1console/get/responses")}
"""A WebSocket answers 101, which the linter doesn't count as a success."""


def test_the_linter_has_nothing_to_say(tmp_path: Path) -> None:
    linter = unpacked_package(REDOCLY, tmp_path)
    config = tmp_path / "redocly.yaml"
    config.write_text(CONFIG)
    report = tmp_path / "report.json"
    script = tmp_path / "run.js"
    # The linter's own status says nothing new; what it prints is the report.
    script.write_text(
        "const {spawnSync} = require('child_process');\n"
        "const fs = require('fs');\n"
        "const [cli, document, config, report] = process.argv.slice(2);\n"
        "const argv = [cli, 'lint', document, '--format=json', '--max-problems=1000',"
        " `--config=${config}`];\n"
        "const done = spawnSync(process.execPath, argv, {maxBuffer: 1 << 26});\n"
        "fs.writeFileSync(report, done.stdout);\n"
        "process.stdout.write(done.stderr);\n"
    )
    told = in_generators_tree(
        [NODE, script, linter / "bin/cli.js", DOCUMENT, config, report],
        folder=tmp_path,
        readable=(DOCUMENT.parent,),
        env={"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"},
    )
    text = report.read_text()
    assert text.startswith("{"), told
    problems: list[dict[str, Any]] = json.loads(text)["problems"]
    found = {(each["ruleId"], each["location"][0].get("pointer", "")) for each in problems}
    assert found == KNOWN, [each["message"] for each in problems]
