"""Origins, networks and delays, without a server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from aiohttp.test_utils import make_mocked_request

from edge_face.web.auth import Delays, _is_local, same_origin
from edge_face.web.connections import network
from edge_face.web.replies import Refusal
from edge_face.web.tickets import MOST, Tickets


@dataclass
class HandClock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (None, "gate:5000", True),
        ("http://gate:5000", "gate:5000", True),
        ("http://GATE:5000", "gate:5000", True),
        ("https://gate", "gate", True),  # TLS by a proxy before us
        ("https://gate:443", "gate", True),
        ("http://gate:5001", "gate:5000", False),
        ("http://gate", "gate:5000", False),
        ("http://evil", "gate:5000", False),
        ("http://gate:5000.evil", "gate:5000", False),
        ("ftp://gate:5000", "gate:5000", False),
        ("null", "gate:5000", False),
        ("", "", False),
        ("http://[::1]:5000", "[::1]:5000", True),
    ],
)
def test_same_origin(origin: str | None, host: str, same: bool) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert same_origin(make_mocked_request("GET", "/", headers=headers)) is same


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("LOCALHOST:80", True), ("127.0.0.1:5000", True), ("[::1]", True), ("", False),
     ("localhost.evil", False), ("10.0.0.1", False), ("localhost:x", False), ("evil@127.0.0.1", False),
     ("127.0.0.1/evil", False), ("[::1", False)],
)  # fmt: skip
def test_local_hosts(host: str, local: bool) -> None:
    assert _is_local(host) is local


def test_an_ipv6_customer_is_one_network() -> None:
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9") != network("2001:db8:1:3::1")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1")
    assert network("fe80::1%eth0") == network("fe80::2%eth0")


async def test_delays_double_up_to_a_bound_and_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    delays = Delays(clock)
    assert [delays._next("10.0.0.1") for _ in range(7)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert delays._next("10.0.0.2") == 0.5
    clock.now += Delays.FORGET_S + 1
    assert delays._next("10.0.0.1") == 0.5


async def test_the_table_of_addresses_is_bounded() -> None:
    delays = Delays(HandClock())
    for number in range(Delays.ADDRESSES + 50):
        delays._next(f"address {number}")
    assert len(delays._failures) == Delays.ADDRESSES
    assert delays._next("address 49") == 0.5  # the oldest gave way
    assert delays._next(f"address {Delays.ADDRESSES}") == 1.0


async def test_only_so_many_wait_from_one_address() -> None:
    delays = Delays(HandClock())
    waiting = [asyncio.create_task(delays.wait("10.0.0.1")) for _ in range(Delays.WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Refusal) as refused:
        await delays.wait("10.0.0.1")
    assert refused.value.status == 429
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not delays._waiting


def test_a_ticket_lives_for_a_minute() -> None:
    clock = HandClock()
    tickets = Tickets(clock)
    ticket = tickets.new("ef_token")
    clock.now += 59.9
    assert tickets.token(ticket) == "ef_token"
    assert tickets.token(ticket + "x") is None
    clock.now += 0.1
    assert tickets.token(ticket) is None


def test_the_oldest_tickets_of_a_token_give_way_and_others_stay() -> None:
    """Whoever has a viewer's token ends nobody else's streams."""
    clock = HandClock()
    tickets = Tickets(clock)
    other = tickets.new("other")
    made = [tickets.new("token") for _ in range(MOST + 1)]
    assert [tickets.token(made[number]) for number in (0, 1, MOST)] == [None, "token", "token"]
    assert tickets.token(other) == "other"
    clock.now += 60
    tickets.new("token")
    assert len(tickets._tickets) == 1, "those that are over are forgotten"
