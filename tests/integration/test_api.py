"""The HTTP interface: a real server and store, asked by a real client."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import socket
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import openpyxl
import pytest
import requests

from edge_face import settings
from edge_face.errors import EdgeFaceError
from edge_face.supervisor import PhotoProcess
from edge_face.web import forms
from edge_face.web.app import Health
from edge_face.web.dropin import encoding_pseudonym, person_pseudonym
from tests.support.api import KATYA, KEY, SOI, Api, encoding, event, multipart, running


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


NAME = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\n'
"""The beginning of a multipart form."""


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


async def enrol(api: Api, name: str, seed: int) -> None:
    form = multipart(("name", name), ("image", f"face {seed}".encode()))
    status, body, _ = await api.ask("POST", "/register", data=form)
    assert (status, body["success"]) == (200, True)


async def test_health_needs_no_token_and_names_nobody(api: Api) -> None:
    assert (await api.ask("GET", "/healthz", None))[:2] == (200, {"status": "ok", "clock": "synced"})
    api.health = Health("degraded", "unsynced")
    assert (await api.ask("GET", "/healthz", "ef_wrong"))[:2] == (200, {"status": "degraded", "clock": "unsynced"})
    api.health = Health("failed", "synced")
    assert (await api.ask("GET", "/healthz", None))[0] == 503


async def test_unknown_addresses_and_methods_answer_in_json(api: Api) -> None:
    assert (await api.ask("GET", "/nothing", None))[0] == 401
    status, body, _ = await api.ask("GET", "/nothing", "viewer")
    assert (status, body["error"]) == (404, "not_found")
    status, body, answer = await api.ask("GET", "/register")
    assert (status, body["error"], body["success"]) == (405, "method_not_allowed", False)
    assert answer.headers["Allow"] == "POST"
    status, body, _ = await api.ask("GET", "/ws/face-stream")
    assert (status, body["error"]) == (400, "websocket_only")


async def test_bytes_that_are_no_http_get_json_and_are_not_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    writer.write(b"GET /faces?token=hush NONSENSE\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b'{"error":"bad_request"' in answer
    assert b"hush" not in answer
    assert "hush" not in caplog.text


async def test_register_list_recognise_unregister(api: Api) -> None:
    await enrol(api, "katya", 1)
    await enrol(api, "zero", 2)
    assert (await api.ask("GET", "/faces", "viewer"))[1] == ["katya", "zero"]
    status, body, _ = await api.ask("GET", "/api/v1/people", "viewer")
    assert [(person["name"], person["faces"]) for person in body["items"]] == [("katya", 1), ("zero", 1)]
    assert body["next_cursor"] is None

    status, body, _ = await api.ask("POST", "/api/v1/recognize", data=multipart(("image", b"face 1")))
    assert (status, body["file"], body["width"], body["height"]) == (200, "image.jpg", 640, 480)
    assert body["faces"] == [
        {"box": [10, 20, 110, 120], "status": "PASS", "reason": "match", "name": "katya", "person_id": "katya",
         "distance": pytest.approx(0, abs=1e-3), "margin": pytest.approx(1.6, abs=0.3), "score": None}
    ]  # fmt: skip

    status, body, _ = await api.ask("POST", "/unregister", data={"name": "katya"})
    assert (status, body["success"]) == (200, True)
    assert (await api.ask("GET", "/faces"))[1] == ["zero"]
    status, body, _ = await api.ask("POST", "/unregister", data={"name": "katya"})
    assert (status, body["success"], body["error"]) == (404, False, "not_found")


async def test_create_and_erase_a_person(api: Api) -> None:
    form = multipart(("name", "Zoë Ω"), ("image", b"face 1"), ("image", b"face 1.1"), ("external_id", "42"))
    status, person, answer = await api.ask("POST", "/api/v1/people", data=form)
    assert (status, person["name"], person["external_id"], person["faces"]) == (201, "Zoë Ω", "42", 2)
    assert answer.headers["Location"] == f"/api/v1/people/{person['id']}"

    assert (await api.ask("DELETE", "/api/v1/people/Zo%C3%AB%20%CE%A9"))[0] == 404  # a name is no id
    assert (await api.ask("DELETE", answer.headers["Location"]))[0] == 200
    assert (await api.ask("DELETE", answer.headers["Location"]))[0] == 404


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ([("image", b"face 3")], 400, "missing_field"),
        ([("name", "x")], 400, "missing_field"),
        ([("name", "x"), ("name", "y"), ("image", b"face 3")], 400, "bad_field"),
        ([("name", "x"), ("image", b"face 3"), ("force", "perhaps")], 400, "bad_field"),
        ([("name", " "), ("image", b"face 3")], 400, "bad_name"),
        ([("name", "x" * 20_000), ("image", b"face 3")], 413, "too_large"),
        ([("name", "x"), ("image", b"nobody")], 422, "no_face"),
        ([("name", "x"), ("image", b"crowd")], 422, "several_faces"),
        ([("name", "x"), ("image", b"noise")], 422, "bad_image"),
        ([("name", "x"), ("image", b"huge")], 413, "too_large"),
        ([("name", "x"), ("image", b"heic")], 415, "unsupported_format"),
        ([("name", "x"), ("image", b"face 1")], 409, "duplicate_person"),
        ([("name", "x"), *[("image", b"face 3")] * 11], 400, "too_many_files"),
    ],
)
async def test_what_cannot_be_registered(
    api: Api, fields: list[tuple[str, str | bytes]], status: int, error: str
) -> None:
    await enrol(api, "Katya", 1)
    got, body, _ = await api.ask("POST", "/register", data=multipart(*fields))
    assert (got, body["success"], body["error"]) == (status, False, error)
    assert body["message"]
    assert (await api.ask("GET", "/faces"))[1] == ["Katya"]


async def test_force_registers_a_lookalike(api: Api) -> None:
    await enrol(api, "Katya", 1)
    form = multipart(("name", "Twin"), ("image", b"face 1"), ("force", "true"))
    assert (await api.ask("POST", "/register", data=form))[0] == 200


@pytest.mark.parametrize(
    ("content_type", "body", "status", "error"),
    [
        ("multipart/form-data", b"x", 400, "malformed_form"),
        ("multipart/form-data; boundary=b", b"no boundary here", 400, "malformed_form"),
        ("multipart/form-data; boundary=b", NAME + b"Kat", 400, "malformed_form"),
        ("multipart/form-data; boundary=b", b"--b\r\nNonsense\r\n\r\nKat\r\n--b--\r\n", 400, "malformed_form"),
        ("multipart/form-data; boundary=b", NAME + b"\xff\r\n--b--\r\n", 400, "malformed_form"),
        ("application/x-www-form-urlencoded", b"name=%ff&image=x", 400, "malformed_form"),
        ("application/x-www-form-urlencoded", b"a=1&" * 60, 400, "malformed_form"),
        ("application/json", b'{"name": "x"}', 415, "unsupported_media_type"),
    ],
)
async def test_broken_forms(api: Api, content_type: str, body: bytes, status: int, error: str) -> None:
    got, answer, _ = await api.ask("POST", "/register", data=body, headers={"Content-Type": content_type})
    assert (got, answer["error"]) == (status, error)


async def test_a_field_whose_name_is_no_unicode(api: Api) -> None:
    await enrol(api, "Katya", 1)
    head = b'--b\r\nContent-Disposition: form-data; name="force\xff"\r\n\r\nyes\r\n'
    picture = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\nface 2\r\n--b--\r\n'
    media = {"Content-Type": "multipart/form-data; boundary=b"}
    status, answer, _ = await api.ask("POST", "/api/v1/people/katya/faces", data=head + picture, headers=media)
    assert (status, answer["error"]) == (400, "bad_field")


async def test_a_body_that_is_too_large_is_not_read_to_its_end(api: Api) -> None:
    status, body, _ = await api.ask("POST", "/api/v1/recognize", data=multipart(("image", b"x" * (21 << 20))))
    assert (status, body["error"]) == (413, "too_large")

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(60):
            yield bytes(1 << 20)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    status, body, _ = await api.ask("POST", "/api/v1/recognize", data=endless(), headers=headers)
    assert (status, body["error"]) == (413, "too_large")


async def test_a_bug_is_500_without_a_traceback(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = await api.ask("POST", "/process-frame/", data=multipart(("frame", SOI + b"bug")))
    assert (status, body["error"], body["success"]) == (500, "internal", False)
    assert "ZeroDivisionError" in caplog.text
    assert "Zero" not in body["message"]


async def test_a_broken_database_is_503_and_its_path_stays_here(api: Api, tmp_path: Path) -> None:
    api.store.close()
    for token in ("admin", "ef_wrong"):
        status, body, _ = await api.ask("GET", "/faces", token)
        assert (status, body["error"]) == (503, "storage_unavailable")
        assert str(tmp_path) not in body["message"]


async def test_register_faces_tells_of_each_file(api: Api) -> None:
    files = {"katya.jpg": b"face 1", "zero/1.jpg": b"face 2", "zero/2.jpg": b"face 2.1"}
    files |= {"ema.jpg": b"nobody", "x.txt": b""}
    status, body, _ = await api.ask("POST", "/register-faces", data=multipart(("zip", zipped(files))))
    assert (status, body["success"]) == (200, True)
    assert body["result"]["registered"] == ["katya", "zero"]
    assert body["result"]["total"] == 5
    failed = [(bad["file"], bad["error"]) for bad in body["result"]["failed"]]
    assert failed == [("ema.jpg", "no_face"), ("x.txt", "refused")]

    status, body, _ = await api.ask("POST", "/register-faces", data=multipart(("zip", zipped({"a.jpg": b"nobody"}))))
    assert (status, body["success"], body["error"], body["result"]["total"]) == (422, False, "all_refused", 1)
    status, body, _ = await api.ask("POST", "/register-faces", data=multipart(("zip", zipped({}))))
    assert (status, body["success"]) == (200, True)
    status, body, _ = await api.ask("POST", "/register-faces", data=multipart(("zip", b"no zip")))
    assert (status, body["success"], body["error"]) == (400, False, "bad_zip")

    batch = {"katya.jpg": b"face 1", "bad.jpg": b"nobody"}
    status, body, _ = await api.ask("POST", "/api/v1/people/batch", data=multipart(("zip", zipped(batch))))
    assert (status, body["enrolled"], body["refused"], body["total"]) == (200, 1, 1, 2)
    assert [item["error"] for item in body["items"]] == [None, "no_face"]


async def test_process_frame_in_every_way_to_send_one(api: Api) -> None:
    picture = SOI + b"face 5"
    coded = base64.b64encode(picture).decode()
    forms_ = [
        multipart(("frame", picture)),
        multipart(("frame", coded.encode())),
        multipart(("frame", coded)),
        multipart(("frame", f"data:image/jpeg;base64,{coded}")),
        {"frame": coded},
        {"frame": f"data:image/jpeg;base64,{coded}"},
    ]
    for form in forms_:
        status, body, _ = await api.ask("POST", "/process-frame/", data=form)
        assert status == 200
        assert body["coords"] == [10, 20, 100, 100]
        assert body["embedding"] == pytest.approx(encoding(5).tolist())
        assert body["hash"] == encoding_pseudonym(KEY, encoding(5))
    await enrol(api, "Katya", 5)
    assert (await api.ask("POST", "/process-frame/", data=forms_[-1]))[1]["hash"] == person_pseudonym(KEY, KATYA)
    status, body, _ = await api.ask("POST", "/process-frame/", data=multipart(("frame", SOI + b"nobody")))
    assert (status, body["error"]) == (422, "no_face")


async def test_events_are_filtered_paged_and_exported(api: Api) -> None:
    for second in range(5):
        api.store.record(event(1736400000.0 + second, camera="back" if second == 4 else "front"))
    api.store.record(event(1736400010.0, status="REJECT"))

    async def seqs(query: str) -> list[int]:
        status, body, _ = await api.ask("GET", f"/api/v1/events?{query}", "viewer")
        assert status == 200
        return [item["seq"] for item in body["items"]]

    assert await seqs("") == [6, 5, 4, 3, 2, 1]
    assert await seqs("status=reject") == [6]
    assert await seqs("person=Katya&camera=back") == [5]
    assert await seqs("since=1736400001&until=1736400003") == [3, 2]
    assert await seqs("since=2025-01-09T05:20:03Z") == [6, 5, 4]
    assert await seqs("since=2025-01-09T06:20:03+01:00") == [6, 5, 4]

    _, page, _ = await api.ask("GET", "/api/v1/events?limit=4")
    assert [item["seq"] for item in page["items"]] == [6, 5, 4, 3]
    assert await seqs(f"limit=4&cursor={page['next_cursor']}") == [2, 1]
    for query in ("limit=0", "limit=1001", "since=nan", "until=soon", "status=maybe", "format=pdf", "cursor=!"):
        assert (await api.ask("GET", f"/api/v1/events?{query}"))[0] == 400

    status, body, answer = await api.ask("GET", "/api/v1/events", headers={"Accept": "text/csv;q=0.9, */*"})
    assert (status, answer.content_type) == (200, "text/csv")
    assert len(body.decode().splitlines()) == 7
    status, body, answer = await api.ask("GET", "/api/v1/events?format=xlsx&limit=2")
    rows = list(openpyxl.load_workbook(io.BytesIO(body)).worksheets[0].iter_rows(values_only=True))
    assert [row[0] for row in rows] == ["seq", 6, 5]
    assert answer.headers["X-Next-Cursor"]


async def test_too_many_zips_at_once_are_told_to_wait(api: Api) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await asyncio.sleep(0.5)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    first = asyncio.create_task(api.ask("POST", "/register-faces", data=slow(), headers=headers))
    await asyncio.sleep(0.2)
    status, body, answer = await api.ask("POST", "/register-faces", data=multipart(("zip", zipped({}))))
    assert (status, body["error"]) == (429, "busy")
    assert answer.headers["Retry-After"]
    assert (await first)[0] == 400


async def test_a_body_that_never_comes_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "BODY_S", 0.2)

    async def never() -> AsyncIterator[bytes]:
        yield b"name="
        await asyncio.sleep(1)

    status, body, _ = await api.ask(
        "POST", "/unregister", data=never(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (status, body["error"]) == (408, "request_timeout")


async def test_real_photos_through_the_real_child(tmp_path: Path, eileen: bytes, grace: bytes) -> None:
    photos = PhotoProcess(settings.Engine(), "warning")
    try:
        async with running(tmp_path, photos) as api:

            def register(name: str, photo: bytes) -> requests.Response:
                # As the seed's README does it with curl.
                url, headers = f"{api.server.url}/register", {"X-API-Key": api.admin}
                files = {"image": ("a.jpg", photo)}
                return requests.post(url, data={"name": name}, files=files, headers=headers, timeout=30)

            answer = await asyncio.to_thread(register, "Eileen", eileen)
            assert answer.json() == {"success": True, "message": "Eileen is registered."}
            assert [face.thumbnail for face in api.store.faces("eileen")] == [False]
            answer = await asyncio.to_thread(register, "Nobody", b"\xff\xd8 broken")
            assert (answer.status_code, answer.json()["error"]) == (422, "bad_image")
            for photo, reason in ((eileen, "match"), (grace, "unknown")):
                _, body, _ = await api.ask("POST", "/api/v1/recognize", data=multipart(("image", photo)))
                assert [face["reason"] for face in body["faces"]] == [reason]
            _, body, _ = await api.ask("POST", "/process-frame/", data=multipart(("frame", grace)))
            assert len(body["embedding"]) == 128
    finally:
        await photos.close()


async def test_a_port_in_use_is_told_in_plain_words(api: Api, tmp_path: Path) -> None:
    config = settings.Config(api=settings.Api(port=api.server.port))
    (tmp_path / "second").mkdir()
    with pytest.raises(EdgeFaceError, match=rf"Port {api.server.port} on 127.0.0.1 is in use .*set \[api\] port"):
        async with running(tmp_path / "second", config=config):
            pass


async def test_it_stops_within_a_second_whatever_is_going_on(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    idle = socket.create_connection(("127.0.0.1", api.server.port))
    waiting = asyncio.create_task(api.ask("GET", "/faces", "ef_wrong"))
    stream = await api.session.ws_connect(api.stream_url, headers={"X-API-Key": api.viewer})
    await asyncio.sleep(0.1)
    started = time.monotonic()
    await asyncio.gather(api.server.stop(), stream.receive())
    assert time.monotonic() - started < 1
    assert stream.close_code == 1001
    idle.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_metrics_say_what_the_status_says(api: Api) -> None:
    _, body, answer = await api.ask("GET", "/metrics", "viewer")
    assert answer.content_type == "text/plain"
    lines = body.decode().splitlines()
    for line in (
        'edge_face_camera_up{camera="front"} 1.0',
        'edge_face_camera_restarts_total{camera="front"} 2.0',
        'edge_face_camera_outgrown_total{camera="front"} 1.0',
        'edge_face_camera_memory_bytes{camera="front"} 1.31596288e+08',
        'edge_face_decisions_total{camera="front",reason="match"} 2.0',
        'edge_face_latency_seconds{camera="front",quantile="0.95"} 0.09',
        'edge_face_stage_seconds{camera="front",quantile="0.5",stage="detect"} 0.02',
        'edge_face_backend_refused{backend="onnxruntime",camera="front"} 1.0',
        'edge_face_deliveries_total{outcome="expired",sink="mqtt"} 2.0',
        'edge_face_outbox_events{sink="mqtt"} 5.0',
        'edge_face_outbox_dropped_total{reason="expired",sink="mqtt"} 2.0',
        'edge_face_capture_to_publish_seconds_bucket{le="0.1",sink="mqtt"} 1.0',
        'edge_face_capture_to_publish_seconds_sum{sink="mqtt"} 0.3',
        'edge_face_camera_state{camera="front",state="ok"} 1.0',
        'edge_face_camera_state{camera="front",state="lost"} 0.0',
        "edge_face_temperature_celsius 51.5",
        'edge_face_memory_pss_bytes{process="daemon"} 8.388608e+07',
        "edge_face_database_bytes 4096.0",
        "edge_face_clock_synced 1.0",
    ):
        assert line in lines
