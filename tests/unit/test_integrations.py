"""The examples of docs/integrations, as far as their files alone tell: what they do is tried where they are run."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "docs" / "integrations"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())


class Loader(yaml.SafeLoader):
    """YAML with the tags of Home Assistant and of ESPHome, whose meaning is no matter here."""


Loader.add_multi_constructor("!", lambda loader, tag, node: f"!{tag} {node.value}")


def blocks(page: Path) -> list[Any]:
    text = page.read_text(encoding="utf-8")
    return [yaml.load(block, Loader) for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_can_be_read_and_names_nothing_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        assert json.loads(text)
    elif path.suffix == ".yaml":
        assert yaml.load(text, Loader)
    elif path.suffix == ".md":
        assert all(blocks(path))
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b|/(?:home|root|tmp|work)/", text)
    assert not re.search(r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d+){2,3}\b", text)
    assert path.name == "README.md" or f"({path.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_flow_hangs_together() -> None:
    flow = json.loads((FOLDER / "node-red.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in flow}
    assert len(nodes) == len(flow)
    for node in flow:
        assert {target for wire in node.get("wires", []) for target in wire} <= set(nodes)
        assert node.get("z", flow[0]["id"]) in nodes
        assert node["type"] not in ("mqtt in", "mqtt out") or nodes[node["broker"]]["type"] == "mqtt-broker"
    [relay] = [node for node in flow if node["type"] == "mqtt out"]
    assert (relay["qos"], relay["retain"]) == ("0", "false"), "an order to open that the broker keeps comes late"
