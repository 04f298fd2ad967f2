"""Webhooks, against a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as StandardWebhook
from standardwebhooks.webhooks import WebhookVerificationError

from edge_face import __version__
from edge_face.errors import EdgeFaceError
from edge_face.events import Snapshot
from edge_face.publish import HISTORY, Refused, RetryLater, SwitchedOff
from edge_face.settings import Webhook
from edge_face.sinks.webhook import MAX_PICTURE, PICTURE_S, WebhookSink, probe
from tests.support.broker import until
from tests.support.daemon import free_port
from tests.support.publishing import CLOCK, AskedCameras, deadline, event, publishing

Answer = web.Response | Callable[[], Awaitable[web.Response]]


class Receiver:
    """Answers 204, or what stands in `answers` first."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[web.Request, bytes]] = []
        self.answers: list[Answer] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        if not self.answers:
            return web.Response(status=204)
        answer = self.answers.pop(0)
        return answer if isinstance(answer, web.Response) else await answer()

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(body["type"], body["name"]) for body in (json.loads(raw) for _, raw in self.requests)]


@asynccontextmanager
async def serving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with serving() as it:
        yield it


async def deliver(hook: Webhook, *, ends: float | None = None) -> None:
    sink = WebhookSink("default", hook, CLOCK)
    try:
        await sink.deliver(event().payload(), ends, False)
    finally:
        await sink.close()


async def hang() -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def test_an_event_arrives_as_json(receiver: Receiver, tmp_path: Path) -> None:
    sent = event("Екатерина")
    async with publishing(tmp_path / "e.db", WebhookSink("default", Webhook(url=receiver.url), CLOCK)) as publisher:
        numbered = await publisher.publish(sent, deadline())
        await publisher.publish(event(None), deadline())  # events = PASS by default
        assert await publisher.drain(2)
    [(request, body)] = receiver.requests
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == f"edge-face/{__version__}"
    assert "webhook-signature" not in request.headers
    assert json.loads(body) == numbered.payload()
    assert "Екатерина".encode() in body


async def test_a_retry_has_the_same_id_and_each_attempt_its_own_valid_signature(
    receiver: Receiver, tmp_path: Path
) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    receiver.answers = [web.Response(status=500), web.Response(status=429), web.Response(status=408)]
    sink = WebhookSink("a", Webhook(url=receiver.url, secret=secret, events=("PASS", "REJECT")), CLOCK)
    async with publishing(tmp_path / "e.db", sink) as publisher:
        sent = await publisher.publish(event(None), deadline())
        assert await publisher.drain(5)
        assert publisher.counters["webhook:a"].retries == 3
    assert [request.headers["webhook-id"] for request, _ in receiver.requests] == [sent.id] * 4
    for request, body in receiver.requests:
        sent_at = request.headers["webhook-timestamp"]
        assert abs(int(sent_at) - CLOCK.wall()) < 10
        assert StandardWebhook(secret).verify(body.decode(), dict(request.headers)) == json.loads(body)


async def test_while_the_secret_changes_both_sign(receiver: Receiver) -> None:
    old, new = ("whsec_" + base64.b64encode(letter * 24).decode() for letter in (b"o", b"n"))
    await deliver(Webhook(url=receiver.url, secret=new, old_secret=old))
    [(request, body)] = receiver.requests
    for secret in (old, new):
        assert StandardWebhook(secret).verify(body.decode(), dict(request.headers)) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        StandardWebhook("whsec_" + base64.b64encode(b"x" * 24).decode()).verify(body.decode(), dict(request.headers))


async def test_a_receiver_gets_the_headers_it_wants(receiver: Receiver) -> None:
    await deliver(Webhook(url=receiver.url, headers="X-Gate: north\nAuthorization: Bearer abc"))
    [(request, _)] = receiver.requests
    assert (request.headers["X-Gate"], request.headers["Authorization"]) == ("north", "Bearer abc")
    assert request.headers["Content-Type"] == "application/json"


async def test_a_body_is_at_most_64_kib(receiver: Receiver) -> None:
    sink = WebhookSink("default", Webhook(url=receiver.url), CLOCK)
    with pytest.raises(Refused, match="65536"):
        await sink.deliver(event("x" * 33_000).payload(), None, False)
    await sink.deliver(event("x" * 30_000).payload(), None, False)
    await sink.close()
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("hook", "wanted"),
    [
        (Webhook(), [True, False, True]),
        (Webhook(events=("REJECT",)), [False, True, False]),
        (Webhook(cameras=("back", "side")), [False, False, True]),
    ],
)
def test_what_a_target_wants(hook: Webhook, wanted: list[bool]) -> None:
    sink = WebhookSink("a", hook, CLOCK)
    assert [sink.wants(each) for each in (event(), event(None), event(camera="back"))] == wanted


async def test_a_picture_of_the_moment_on_request(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [web.Response(status=500)]
    cameras = AskedCameras()
    hook = Webhook(url=receiver.url, snapshot=True, late="send")
    async with publishing(tmp_path / "e.db", WebhookSink("a", hook, CLOCK, cameras)) as publisher:
        await publisher.publish(event("Ada"), deadline())
        assert await publisher.drain(5)
        await publisher.publish(event("Bob"), deadline(-1))
        cameras.jpeg = None
        await publisher.publish(event("Cem"), deadline())
        cameras.jpeg = bytes(MAX_PICTURE)
        await publisher.publish(event("Eve"), deadline())
        assert await publisher.drain(5)
    bodies = [json.loads(body) for _, body in receiver.requests]
    picture = base64.b64encode(b"\xff\xd8 picturefront").decode()
    assert [(body["name"], body["snapshot"]) for body in bodies[:3]] == [("Ada", picture)] * 2 + [("Bob", None)]
    assert cameras.pictures[0] == "front"
    assert cameras.pictures.count("front") == 3, "one for each live event, and none for the second attempt"
    assert all(body["snapshot"] is None for body in bodies[3:]), "lost, or too large"


async def test_an_event_does_not_wait_for_a_picture(receiver: Receiver) -> None:
    class Slow(AskedCameras):
        async def picture(self, camera: str, *, small: bool = False) -> Snapshot:
            await asyncio.sleep(30)
            raise AssertionError

    sink = WebhookSink("a", Webhook(url=receiver.url, snapshot=True), CLOCK, Slow())
    began = CLOCK.monotonic()
    await sink.deliver(event().payload(), deadline(), False)
    await sink.close()
    assert PICTURE_S <= CLOCK.monotonic() - began < PICTURE_S + 2
    assert json.loads(receiver.requests[0][1])["snapshot"] is None


async def test_a_target_that_hangs_delays_no_other(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [hang]
    slow = WebhookSink("slow", Webhook(url=f"{receiver.url}/slow", events=("REJECT", "PASS")), CLOCK)
    async with (
        serving() as other,
        publishing(tmp_path / "e.db", slow, WebhookSink("quick", Webhook(url=other.url), CLOCK)) as publisher,
    ):
        await publisher.publish(event("Ada"), deadline(30))
        await until(lambda: receiver.requests)
        for name in ("Bob", "Eve"):
            await publisher.publish(event(name), deadline(30))
        await until(lambda: len(other.requests) == 3, 2)
        assert [body["name"] for body in (json.loads(raw) for _, raw in other.requests)] == ["Ada", "Bob", "Eve"]
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None), (202, None), (204, None),
        (301, Refused), (302, Refused), (308, Refused),
        (400, Refused), (401, Refused), (404, Refused), (422, Refused),
        (408, RetryLater), (425, RetryLater), (429, RetryLater), (500, RetryLater), (503, RetryLater),
        (410, SwitchedOff),
    ],
)  # fmt: skip
async def test_what_an_answer_means(receiver: Receiver, status: int, error: type[Exception] | None) -> None:
    receiver.answers = [web.Response(status=status, headers={"Location": f"{receiver.url}/elsewhere"})]
    if error is None:
        await deliver(Webhook(url=receiver.url))
    else:
        with pytest.raises(error):
            await deliver(Webhook(url=receiver.url))
    assert len(receiver.requests) == 1  # a redirection is not followed


@pytest.mark.parametrize(
    ("value", "after_s"), [("7", 7.0), ("99999", 300.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
async def test_retry_after(receiver: Receiver, value: str, after_s: float | None) -> None:
    receiver.answers = [web.Response(status=503, headers={"Retry-After": value})]
    with pytest.raises(RetryLater) as caught:
        await deliver(Webhook(url=receiver.url))
    assert caught.value.after_s == after_s


async def test_a_hanging_receiver_is_given_up(receiver: Receiver) -> None:
    receiver.answers = [hang, hang]
    with pytest.raises(RetryLater, match="in time"):
        await deliver(Webhook(url=receiver.url, timeout=0.2))
    with pytest.raises(RetryLater, match="in time"):
        await deliver(Webhook(url=receiver.url), ends=deadline(0.2))
    with pytest.raises(RetryLater, match="expired"):
        await deliver(Webhook(url=receiver.url), ends=deadline(-0.1))
    assert len(receiver.requests) == 2


async def test_a_given_up_request_is_taken_back_from_the_kernel(tmp_path: Path) -> None:
    ends: list[str] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(RetryLater):
        await deliver(Webhook(url=f"http://127.0.0.1:{port}", timeout=0.2))
    await until(lambda: ends)
    server.close()
    assert ends == ["reset"]


async def test_an_expired_event_is_dropped_or_sent_as_history(receiver: Receiver, tmp_path: Path) -> None:
    down = [web.Response(status=503) for _ in range(100)]
    live = WebhookSink("live", Webhook(url=f"{receiver.url}/live"), CLOCK)
    async with publishing(tmp_path / "live.db", live) as publisher:
        receiver.answers = [*down]
        await publisher.publish(event("Ada"), deadline(0.5))
        assert await publisher.drain(2)
        receiver.answers.clear()
        tried = len(receiver.requests)
        await publisher.publish(event("Bob"), deadline())
        assert await publisher.drain(2)
    assert receiver.events[tried:] == [("face_event", "Bob")]
    receiver.requests.clear()

    late = WebhookSink("late", Webhook(url=f"{receiver.url}/late", late="send"), CLOCK)
    async with publishing(tmp_path / "late.db", late) as publisher:
        receiver.answers = [*down]
        await publisher.publish(event("Ada"), deadline(0.3))
        assert not await publisher.drain(0.4)
        receiver.answers.clear()
        await publisher.publish(event("Bob"), deadline())
        assert await publisher.drain(5)
    assert receiver.events[0] == ("face_event", "Ada")
    assert receiver.events[-2:] == [(HISTORY, "Ada"), ("face_event", "Bob")]


async def test_nothing_secret_is_logged(receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = receiver.url.replace("http://", "http://user:hunter2@") + "/hunter3?key=hunter4"
    receiver.answers = [web.Response(status=404), web.Response(status=500), hang]
    hook = Webhook(url=address, secret="hunter5", headers="X-Key: hunter6", timeout=0.2)
    async with publishing(tmp_path / "e.db", WebhookSink("a", hook, CLOCK)) as publisher:
        for name in ("Ada", "Bob"):
            await publisher.publish(event(name), deadline())
        assert await publisher.drain(5)
    assert receiver.requests[0][0].headers["Authorization"].startswith("Basic ")
    refused = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert refused == [f"webhook:a refused event 1: {receiver.url} answered 404"]
    assert "hunter" not in caplog.text


async def test_nobody_there_is_tried_again() -> None:
    with pytest.raises(RetryLater, match=r"http://127\.0\.0\.1:9 cannot be reached: Connect call failed|refused"):
        await deliver(Webhook(url="http://127.0.0.1:9/secret?x=y"))


async def test_the_probe_posts_a_test(receiver: Receiver) -> None:
    assert await probe("default", Webhook(url=receiver.url, secret="s"), CLOCK) == f"{receiver.url} answered 204"
    [(request, body)] = receiver.requests
    assert json.loads(body) == {"type": "test"}
    assert StandardWebhook(b"s").verify(body.decode(), dict(request.headers)) == {"type": "test"}
    receiver.answers = [web.Response(status=401)]
    with pytest.raises(EdgeFaceError, match="answered 401"):
        await probe("default", Webhook(url=receiver.url), CLOCK)
    with pytest.raises(EdgeFaceError, match="reached"):
        await probe("default", Webhook(url="http://127.0.0.1:9"), CLOCK)


async def test_the_receiver_of_the_documents(tmp_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    port = free_port()
    receiver = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parents[2] / "docs/integrations/receiver.py"),
        env=os.environ | {"SECRET": secret, "PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert receiver.stdout
    try:
        hook = Webhook(url=f"http://127.0.0.1:{port}", secret=secret, late="send")
        async with publishing(tmp_path / "e.db", WebhookSink("a", hook, CLOCK)) as publisher:
            await publisher.publish(event("Ada", expires_at=CLOCK.wall() - 1), deadline(-1))
            await publisher.publish(event("Bob", expires_at=CLOCK.wall() + 30, clock_synced=False), deadline(30))
            await publisher.publish(event("Joe", expires_at=CLOCK.wall() + 30, demo=True), deadline(30))
            once = event("Eve", expires_at=CLOCK.wall() + 30)
            await publisher.publish(once, deadline(30))
            assert await publisher.drain(20)
        again = WebhookSink("again", hook, CLOCK)
        await again.deliver(once.payload(), deadline(30), False)
        await again.deliver(event("Max", expires_at=CLOCK.wall() - 0.1).payload(), deadline(30), False)
        await again.deliver(event("Ivan", expires_at=CLOCK.wall() + 30).payload(), deadline(30), False)
        await again.close()
        for name in (b"Eve", b"Ivan"):
            assert await asyncio.wait_for(receiver.stdout.readline(), 10) == b"open for " + name + b"\n"
        with pytest.raises(Refused, match="401"):
            await deliver(Webhook(url=hook.url, secret="somebody else's"))
    finally:
        receiver.kill()
        await receiver.wait()
