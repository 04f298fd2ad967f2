"""Sessions of the login page, and where a login may lead."""

from __future__ import annotations

import pytest

from edge_face.web.login import HOME, local_path, page
from edge_face.web.sessions import IDLE_S, LIFE_S, MOST, Sessions
from tests.support.clock import HandClock


def test_a_session_ends_when_it_is_idle(clock: HandClock) -> None:
    sessions = Sessions(clock)
    session = sessions.new("ef_token")
    for _ in range(3):
        clock.now += IDLE_S - 1
        assert sessions.token(session) == "ef_token", "to use it keeps it"
    clock.now += IDLE_S
    assert sessions.token(session) is None
    clock.now -= IDLE_S
    assert sessions.token(session) is None, "it is forgotten"


def test_a_session_ends_when_it_is_old_however_much_it_is_used(clock: HandClock) -> None:
    sessions = Sessions(clock)
    session, ends_at = sessions.new("ef_token"), clock.now + LIFE_S
    while clock.now < ends_at - 60:
        assert sessions.token(session) == "ef_token"
        clock.now += 60
    clock.now = ends_at
    assert sessions.token(session) is None


def test_ids_are_random_and_end_one_by_one(clock: HandClock) -> None:
    sessions = Sessions(clock)
    first, second = sessions.new("ef_token"), sessions.new("ef_token")
    assert first != second
    assert "token" not in first
    assert len(first) >= 43
    sessions.end(first)
    assert [sessions.token(each) for each in (first, second, "es_guess", "", "\udcff")] == [
        *(None, "ef_token", None, None, None)
    ]


def test_the_number_of_a_tokens_sessions_is_bounded_and_others_stay(clock: HandClock) -> None:
    sessions = Sessions(clock)
    other = sessions.new("ef_other")
    made = [sessions.new("ef_token") for _ in range(MOST)]
    assert sessions.token(made[0])
    made += [sessions.new("ef_token") for _ in range(3)]
    ended = [number for number, each in enumerate(made) if sessions.token(each) is None]
    assert ended == [1, 2, 3], "those that were idle for longest"
    assert sessions.token(other) == "ef_other"
    assert len(sessions._sessions) == MOST + 1


def test_those_that_are_over_are_forgotten_at_the_next_login(clock: HandClock) -> None:
    sessions = Sessions(clock)
    for number in range(100):
        sessions.new(f"ef_{number}")
    clock.now += IDLE_S
    sessions.new("ef_token")
    assert len(sessions._sessions) == 1


@pytest.mark.parametrize("path", ["/", "/docs", "/people?q=a%20b&x=1#top", "/a//b", "/" + "x" * 1999])
def test_a_login_leads_to_a_path_of_this_server(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    "path",
    [None, "", "docs", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
     "/\n/evil.example", "\t//evil.example", " //evil.example", "http://evil.example", "javascript:alert(1)", "/a b",
     "/a\r\nSet-Cookie: x=y", "/\x00", "/é", "/" + "x" * 2002, "@evil.example", "/docs\n"],
)  # fmt: skip
def test_and_never_to_another_site(path: str | None) -> None:
    assert local_path(path) == HOME


def test_the_page_repeats_nothing_that_could_be_read_as_html() -> None:
    shown = page('/"><script>x</script>', "<script>")
    assert "<script" not in shown
    assert '"/&quot;&gt;&lt;script&gt;x&lt;/script&gt;"' in shown
