"""The API is what its own OpenAPI document says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_face.web.auth import Delays
from tests.support.api import Api, running
from tests.support.daemon import Daemon, write_config

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def test_every_route_is_in_the_document(api: Api) -> None:
    _, document, _ = await api.ask("GET", "/openapi.json", "viewer")
    assert document["openapi"] == "3.1.0"
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    routes = api.server._app.router.routes()
    served = {(route.method, route.resource.canonical) for route in routes if route.resource}
    assert documented == served - {("HEAD", "/healthz"), ("POST", "/process-frame")}  # the same, written shorter
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            needs_token = bool(operation["security"]) or (method, path) == ("post", "/login")
            assert ("401" in operation["responses"]) == needs_token


async def test_the_document_says_what_is_needed_and_what_comes(api: Api) -> None:
    _, document, _ = await api.ask("GET", "/openapi.json", "viewer")
    people = document["paths"]["/api/v1/people"]
    assert [parameter["name"] for parameter in people["get"]["parameters"]] == ["q", "limit", "cursor"]
    assert people["get"]["parameters"][1]["schema"]["maximum"] == 1000
    form = people["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["required"]) == {"name", "image"}
    assert form["properties"]["image"]["maxItems"] == 10
    assert {"201", "400", "401", "403", "409", "413", "415", "422"} <= set(people["post"]["responses"])
    reply = people["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    page = document["components"]["schemas"][reply["$ref"].rpartition("/")[2]]
    assert set(page["properties"]) == {"items", "next_cursor"}


async def test_the_page_shows_all_of_it_and_needs_nothing_from_elsewhere(api: Api) -> None:
    headers = {"X-API-Key": api.viewer}
    _, document, _ = await api.ask("GET", "/openapi.json", "viewer")
    async with api.session.get(f"{api.server.url}/docs", headers=headers) as answer:
        page = await answer.text()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for path in document["paths"]:
        assert f"</b>{path}</h2>" in page
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page


def schemathesis(url: str, header: str, examples: int) -> list[str]:
    return [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json", "-H", header),
        *("--checks", CHECKS, "--max-examples", str(examples), "--seed", "1"),
        *("--phases", "examples,coverage,fuzzing"),
    ]


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.early(2)
async def test_schemathesis_at_the_login(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delays, "LONGEST_S", 0.001)
    command = [
        *schemathesis(api.server.url, f"X-API-Key: {api.viewer}", 60),
        *("--include-operation-id", "post_login", "--include-operation-id", "get_login"),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-6000:]
    assert "2 selected" in output.decode(), output.decode()


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.timeout(300)
def test_schemathesis_finds_no_answer_that_is_not_in_the_document(tmp_path: Path, data: Path) -> None:
    clip = data / "video" / "one-man-turning-head.mp4"
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}, "storage": {"keep_unknowns": "yes"}})
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        (header,) = daemon.auth.items()
        command = [
            *schemathesis(daemon.url, ": ".join(header), 60),
            *("--exclude-path", "/streaming"),  # has no end
            *("--exclude-operation-id", "post_login"),  # in the test below: wrong tokens wait
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:]
        assert daemon.health() == "ok"
        assert "Traceback" not in daemon.log
