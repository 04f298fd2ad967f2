"""The store and the photo reader, opened for one command: it works beside a running daemon, or without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edge_face import settings
from edge_face.clock import SystemClock
from edge_face.database import StoreThread
from edge_face.people import People
from edge_face.photo_pool import PhotoPool
from edge_face.roster import StoreRoster
from edge_face.store import Store


def open_store(config: settings.Config) -> Store:
    return Store(Path(config.storage.path), SystemClock(), template_key=config.storage.template_key)


@asynccontextmanager
async def open_people(config: settings.Config, photos_expected: int = 1) -> AsyncIterator[People]:
    thread = StoreThread()
    photos = PhotoPool(config.engine, config.log.level, photos_expected, thumbnails=config.storage.keep_faces)
    try:
        store = await thread.run(open_store, config)
        try:
            yield People(photos, StoreRoster(store, thread), config.decision)
        finally:
            await photos.close()
            await thread.run(store.close)
    finally:
        await thread.close()
