"""How many requests may be worked on, and how long the others wait."""

from __future__ import annotations

import asyncio

import pytest

from edge_face.web import forms
from edge_face.web.replies import Refusal


async def test_who_waits_too_long_is_told_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "WAIT_S", 0.1)
    slots = forms.Slots(at_once=1, waiting=1)

    async def ask() -> int:
        async with slots.taken():
            return 200

    async with slots.taken():
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        with pytest.raises(Refusal) as at_once:
            await ask()
        with pytest.raises(Refusal) as later:
            await waiting
        assert (at_once.value.status, later.value.status) == (429, 429)
        assert later.value.headers["Retry-After"]
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
    assert await waiting == 200
    assert [await ask() for _ in range(3)] == [200] * 3


def test_all_photos_of_a_request_together_have_a_limit() -> None:
    assert forms.IMAGE.max_total == forms.MAX_IMAGE_BYTES
    assert forms.IMAGES.max_total == forms.MAX_IMAGES_BYTES < forms.MAX_IMAGES * forms.MAX_IMAGE_BYTES
    assert forms.ZIP.max_total == forms.MAX_ZIP_BYTES
