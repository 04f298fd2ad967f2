"""Slugs: safe everywhere, never shared by two texts."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_face.errors import RequestError
from edge_face.names import clean_external_id, clean_name, key_text
from edge_face.slugs import fold, person_id, slug


@given(st.text())
@example("")
@example("O'Neil")
@example("a/b+#")
@example("🙂")
@example("x" * 1000)
@example("gate\n")
@example("\udc80")
def test_a_slug_is_always_a_safe_topic_level(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9_-]{1,64}", slug(text))


@given(st.text(), st.text())
@example("Gate-1", "gate-1")
@example("Катя", "Жанна")
@example("张伟", "王芳")
@example("", "x")
@example("a" * 65, "a" * 66)
@example("gate", "gate\n")
def test_different_texts_have_different_slugs(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)


@given(st.text())
@example("cmd")
def test_the_slug_of_a_text_is_never_another_text_s_own_slug(text: str) -> None:
    made = slug(text)
    assert made == text or slug(made) != made


def test_no_camera_stands_where_commands_do() -> None:
    assert slug("cmd").startswith("cmd-")


@pytest.mark.parametrize("text", ["front", "gate-1", "back_door", "0", "-", "gate-20240101x", "a" * 64])
def test_what_is_a_slug_already_stays(text: str) -> None:
    assert slug(text) == text


def test_slugs_never_change_between_versions() -> None:
    assert slug("Gate-1") == "gate-1-1c07a4f5"
    assert slug("Катя") == "x-4b0e1763"
    assert slug("O'Neil") == "o-neil-a803dedb"


def test_folding_keeps_what_can_be_read() -> None:
    assert fold("  José Núñez ") == "jose-nunez"
    assert fold("张伟") == ""


def test_person_ids_are_readable_and_counted() -> None:
    taken = {"katya", "katya-2", "person"}
    assert person_id("Katya", taken.__contains__) == "katya-3"
    assert person_id("张伟", taken.__contains__) == "person-2"


@given(st.text(max_size=120))
def test_a_name_is_either_refused_or_clean(text: str) -> None:
    try:
        name = clean_name(text)
    except RequestError:
        return
    assert 1 <= len(name) <= 100
    assert name == name.strip() == unicodedata.normalize("NFC", name) == clean_name(name) == key_text(name)
    name.encode("utf-8")


@pytest.mark.parametrize(
    "text", ["", "   ", "a\nb", "a\0b", "\x1b[31mred", "x" * 101, "\udcff", "\u202egnp.exe", "\u200b", "a\u2028b"]
)
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        clean_name(text)
    assert caught.value.code == "bad_name"


@pytest.mark.parametrize("text", ["Катя", "O'Neil", "张伟", "José", "x" * 100, "Name, Jr.", "👩\u200d👧", "../etc"])
def test_people_may_be_named_as_they_are(text: str) -> None:
    assert clean_name(text) == text


def test_a_blank_external_id_is_none() -> None:
    assert clean_external_id("  ") is None
    assert clean_external_id(None) is None
    assert clean_external_id(" 123456 ") == "123456"
    with pytest.raises(RequestError):
        clean_external_id("1\t2")


def test_what_cannot_be_a_name_can_still_be_searched_for() -> None:
    assert key_text("  \udcff") == "?"
