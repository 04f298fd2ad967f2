"""A real Node-RED as a process of its own, with the flow of the documents on a test's broker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.support.daemon import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".node-red" / "node_modules" / "node-red" / "red.js"
"""Put there by `scripts/test --integrations`."""
NODE = shutil.which("node") or "node"
FLOW = ROOT / "docs" / "integrations" / "node-red.json"
START_S = 60.0

# Without its editor, and without a look for news on the Internet.
_SETTINGS = "module.exports = %s;\n"


class NodeRed:
    """A context manager that ends it."""

    def __init__(self, folder: Path, broker_port: int) -> None:
        self._folder = folder / "node-red"
        self._folder.mkdir()
        self._log = folder / "node-red.log"
        flow = json.loads(FLOW.read_text(encoding="utf-8"))
        [broker] = [node for node in flow if node["type"] == "mqtt-broker"]
        assert (broker["broker"], broker["port"]) == ("localhost", "1883")
        broker |= {"broker": "127.0.0.1", "port": str(broker_port)}
        (self._folder / "flows.json").write_text(json.dumps(flow), encoding="utf-8")
        settings = {
            "uiHost": "127.0.0.1",
            "uiPort": free_port(),
            "httpAdminRoot": False,
            "flowFile": "flows.json",
            "mqttReconnectTime": 500,
            "telemetry": {"enabled": False, "updateNotification": False},
        }
        (self._folder / "settings.js").write_text(_SETTINGS % json.dumps(settings), encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeRed:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [NODE, str(PROGRAM), "--userDir", str(self._folder)],
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("NODE_")},
            )
        deadline = time.monotonic() + START_S
        while "Connected to broker" not in self.log:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")
