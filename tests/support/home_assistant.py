"""A real Home Assistant core as a process of its own, with the broker set up and somebody who may use its API."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from websockets.sync.client import connect

from tests.support.daemon import free_port

PROGRAM = Path(__file__).parents[2] / ".venv-home-assistant" / "bin" / "hass"
"""Put there by `scripts/test --home-assistant`."""
PAGE = Path(__file__).parents[2] / "docs" / "mqtt.md"
START_S = 60.0

_SETUP = """
http:
  server_host: 127.0.0.1
  server_port: {port}
api:
mqtt:
logger:
  default: warning
  logs:
    homeassistant.components.mqtt: info
input_boolean:
  opened:
    initial: false
{automation}
"""
_USER, _TOKEN_ID, _KEY = "a" * 32, "b" * 32, "c" * 128


class HomeAssistant:
    """A context manager that ends it. Nothing is loaded that would reach for the Internet."""

    def __init__(self, folder: Path, broker_port: int, event: str = "event.none") -> None:
        """`event`: the entity that opens, by an automation, when it is `granted` and has not expired."""
        self._folder = folder / "home-assistant"
        self._log = folder / "home-assistant.log"
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        storage = self._folder / ".storage"
        storage.mkdir(parents=True)
        (self._folder / "configuration.yaml").write_text(
            _SETUP.format(port=port, automation=_automation(event)), encoding="utf-8"
        )
        now = datetime.now(UTC).isoformat()
        entry: dict[str, Any] = {
            "entry_id": "mqtt-broker", "domain": "mqtt", "title": "broker", "source": "user", "unique_id": None,
            "version": 1, "minor_version": 2, "data": {"broker": "127.0.0.1", "port": broker_port}, "options": {},
            "pref_disable_new_entities": False, "pref_disable_polling": False, "disabled_by": None,
            "created_at": now, "modified_at": now, "discovery_keys": {}, "subentries": [],
        }  # fmt: skip
        user = {
            "id": _USER, "name": "test", "group_ids": ["system-admin"], "is_owner": True, "is_active": True,
            "system_generated": False, "local_only": False,
        }  # fmt: skip
        token = {
            "id": _TOKEN_ID, "user_id": _USER, "client_id": None, "client_name": "test",
            "token_type": "long_lived_access_token", "created_at": now, "access_token_expiration": 86400.0,
            "token": "d" * 128, "jwt_key": _KEY,
        }  # fmt: skip
        groups = [{"id": "system-admin", "name": "Administrators"}]
        auth = {"users": [user], "groups": groups, "credentials": [], "refresh_tokens": [token]}
        _store(storage, "core.config_entries", 5, {"entries": [entry]})
        _store(storage, "auth", 1, auth)
        self._headers = {"Authorization": f"Bearer {_access_token()}"}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HomeAssistant:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def start(self) -> None:
        """Returns when it is up and connected to the broker."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), "--skip-pip", "--config", str(self._folder)],
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
            )
        deadline = time.monotonic() + START_S
        while not self._is_up():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def complaints(self) -> list[str]:
        """Warnings about what it was told by MQTT or about the automation; not of the machine's missing libraries, or
        of a broker that went away.
        """
        found = re.findall(r"^.* (?:WARNING|ERROR) .*\[homeassistant\.(?:components\.\w+|helpers).*$", self.log, re.M)
        return [line for line in found if ".camera.img_util" not in line and ".mqtt.client" not in line]

    def states(self) -> dict[str, dict[str, Any]]:
        """Each entity's state with its attributes."""
        return {found["entity_id"]: found for found in self._get("/api/states").json()}

    def state(self, entity: str) -> str | None:
        """None: there is no such entity."""
        found = self.states().get(entity)
        return found["state"] if found else None

    def call(self, service: str, entity: str) -> None:
        domain, _, name = service.partition(".")
        answer = requests.post(
            f"{self._url}/api/services/{domain}/{name}", json={"entity_id": entity}, headers=self._headers, timeout=10
        )
        assert answer.ok, answer.text

    def image(self, entity: str) -> bytes:
        return self._get(f"/api/image_proxy/{entity}").content

    def devices(self) -> list[dict[str, Any]]:
        return self._ask("config/device_registry/list")

    def entities(self) -> list[dict[str, Any]]:
        return self._ask("config/entity_registry/list")

    def rename(self, entity: str, new: str) -> None:
        self._ask("config/entity_registry/update", entity_id=entity, new_entity_id=new)

    def _ask(self, command: str, **more: str) -> Any:
        with connect(self._url.replace("http", "ws") + "/api/websocket", max_size=None) as socket:
            socket.recv(timeout=10)
            socket.send(json.dumps({"type": "auth", "access_token": self._headers["Authorization"].split()[1]}))
            assert json.loads(socket.recv(timeout=10))["type"] == "auth_ok"
            socket.send(json.dumps({"id": 1, "type": command, **more}))
            return json.loads(socket.recv(timeout=10))["result"]

    def _get(self, path: str) -> requests.Response:
        answer = requests.get(self._url + path, headers=self._headers, timeout=10)
        assert answer.ok, (path, answer.status_code, answer.text)
        return answer

    def _is_up(self) -> bool:
        try:
            config: dict[str, Any] = self._get("/api/config").json()
        except requests.ConnectionError:
            return False
        return config["state"] == "RUNNING" and "mqtt" in config["components"]


def _automation(event: str) -> str:
    """The one that the page shows, for this entity and with a switch for the lock."""
    text = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    for shown, used in (
        ("event.gate_1_front_event", event),
        ("lock.unlock", "input_boolean.turn_on"),
        ("lock.gate", "input_boolean.opened"),
    ):
        assert shown in text
        text = text.replace(shown, used)
    return text


def _store(storage: Path, key: str, minor_version: int, data: dict[str, Any]) -> None:
    body = {"version": 1, "minor_version": minor_version, "key": key, "data": data}
    (storage / key).write_text(json.dumps(body), encoding="utf-8")


def _access_token() -> str:
    """A JSON web token (RFC 7519) for the one user, as Home Assistant's page would make it."""
    now = int(time.time())
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iss": _TOKEN_ID, "iat": now, "exp": now + 86400})
    text = ".".join(_base64(json.dumps(part).encode()) for part in parts)
    return f"{text}.{_base64(hmac.digest(_KEY.encode(), text.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
