"""What the daemon asks of the database at its start and goes without where that fails: the gate works all the same."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from pathlib import Path

from edge_face import settings
from edge_face.database import StoreThread
from edge_face.errors import StoreError
from edge_face.store import Store
from edge_face.tokens import Tokens, token_file

_log = logging.getLogger(__name__)

TOKEN_RETRY_S = 5.0


async def admin_token(tokens: Tokens, thread: StoreThread, options: settings.Storage) -> str:
    """Empty while there is none and none can be written: the gate works without the API."""
    try:
        return await thread.run(tokens.ensure_admin, token_file(Path(options.path)))
    except StoreError as error:
        _log.error("there is no admin token yet: %s", error)
        return ""


async def make_admin_token(tokens: Tokens, thread: StoreThread, options: settings.Storage) -> None:
    """For ever. After a start on a full disk: as soon as there is room."""
    while True:
        if await admin_token(tokens, thread, options):
            await asyncio.Event().wait()
        await asyncio.sleep(TOKEN_RETRY_S)


def keep_heap() -> None:
    """What is there after the start stays for ever. To look through it for garbage again and again would hold the event
    loop up, for 25 ms on a fast machine, and for longer on a small board.
    """
    gc.collect()
    gc.freeze()


async def forget_thumbnails(store: Store, thread: StoreThread) -> None:
    """Of the time when they were kept."""
    try:
        if erased := await thread.run(store.forget_thumbnails):
            _log.info("%d pictures of faces were erased, as [storage] keep_faces is off", erased)
    except StoreError as error:
        _log.error("pictures of faces cannot be erased: %s", error)


async def pseudonym_key(store: Store, thread: StoreThread) -> bytes:
    try:
        return await thread.run(store.secret, "pseudonyms")
    except StoreError as error:
        _log.error("pseudonyms last until the next start only: %s", error)
        return os.urandom(32)
