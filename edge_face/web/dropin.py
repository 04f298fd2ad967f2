"""Routes in the shapes of older projects, so that their clients work unchanged."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

from aiohttp import web

from edge_face.errors import ImageError, RequestError
from edge_face.events import Encoding, Person
from edge_face.people import StillFace
from edge_face.web.forms import MAX_IMAGE_BYTES, FileField, read_form
from edge_face.web.people import PhotoWork
from edge_face.web.replies import Refusal, reply
from edge_face.web.services import Route

PATHS = frozenset({"/register", "/unregister", "/faces", "/register-faces", "/process-frame/", "/process-frame"})
"""Where an error also says `"success": false`."""

_FRAME = FileField(("frame",), MAX_IMAGE_BYTES * 4 // 3 + 100_000)  # base64 is longer by a third, and has line ends
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_URL_SAFE = bytes.maketrans(b"-_ ", b"+/+")  # a plus sign that was not escaped in a form arrives as a blank


class DropIn:
    def __init__(self, work: PhotoWork, pseudonym_key: bytes) -> None:
        self._work = work
        self._people = work.people
        self._key = pseudonym_key

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/register", self.register, "admin"),
            Route("POST", "/unregister", self.unregister, "admin"),
            Route("GET", "/faces", self.faces, "viewer"),
            Route("POST", "/register-faces", self.register_faces, "admin"),
            Route("POST", "/process-frame/", self.process_frame, "admin"),
            Route("POST", "/process-frame", self.process_frame, "admin"),
        ]

    async def register(self, request: web.Request) -> web.Response:
        person = await self._work.enrol(request)
        return reply({"success": True, "message": f"{person.name} is registered."})

    async def unregister(self, request: web.Request) -> web.Response:
        person = await self._people.remove((await read_form(request)).text("name"), "name")
        return reply({"success": True, "message": f"{person.name} is no longer registered."})

    async def faces(self, _request: web.Request) -> web.Response:
        return reply([person.name for person in (await self._people.list()).items])

    async def register_faces(self, request: web.Request) -> web.Response:
        """A success when at least one file was, or when there was none; otherwise 422 with the same report."""
        reports = await self._work.enrol_zip(request)
        result = {
            "registered": list(dict.fromkeys(report.name for report in reports if report.error is None)),
            "failed": [
                {"file": report.file, "error": report.error, "message": report.message}
                for report in reports
                if report.error is not None
            ],
            "total": len(reports),
        }
        if reports and not result["registered"]:
            body = {"success": False, "error": "all_refused", "message": "None of the photos could be registered."}
            return reply(body | {"result": result}, 422)
        return reply({"success": True, "result": result})

    async def process_frame(self, request: web.Request) -> web.Response:
        async with self._work.slots.taken():
            (upload,) = (await read_form(request, _FRAME)).files
            still = await self._people.recognise(image_bytes(upload.data))
        if not still.faces:
            raise ImageError("No face was found in the frame.", "no_face")
        first = still.faces[0]
        box = first.face.box
        return reply(
            {
                "hash": _hash(self._key, first),
                "coords": [box.x1, box.y1, box.width, box.height],
                "embedding": first.face.encoding.tolist(),
            }
        )


def _hash(key: bytes, face: StillFace) -> str:
    return person_pseudonym(key, face.person) if face.person else encoding_pseudonym(key, face.face.encoding)


def person_pseudonym(key: bytes, person: Person) -> str:
    """Stands for a person: the same for every picture of them, and useless without the key."""
    return hmac.new(key, b"person:" + person.id.encode(), hashlib.sha256).hexdigest()


def encoding_pseudonym(key: bytes, encoding: Encoding) -> str:
    """Stands for one look at an unknown face."""
    return hmac.new(key, b"encoding:" + encoding.astype("<f4").tobytes(), hashlib.sha256).hexdigest()


def image_bytes(data: bytes) -> bytes:
    """A picture that was sent as it is, as base64, or as a `data:` URL. Raises RequestError, Refusal (413)."""
    text = data.strip()
    is_url = text[:5].lower() == b"data:"
    if is_url:
        head, comma, text = text.partition(b",")
        if not comma or not head.lower().endswith(b";base64"):
            raise RequestError("A data: URL must hold base64.", "bad_base64")
    text = b"".join(re.split(rb"[\r\n\t]+", text.strip(b"\r\n\t"))).translate(_URL_SAFE)
    if _BASE64.fullmatch(text):  # no picture format consists of such bytes alone
        try:
            data = base64.b64decode(text.rstrip(b"=") + b"=" * (-len(text.rstrip(b"=")) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise RequestError("The base64 text is damaged.", "bad_base64") from None
    elif is_url:
        raise RequestError("The base64 text is damaged.", "bad_base64")
    if len(data) > MAX_IMAGE_BYTES:
        raise Refusal(413, "too_large", f"The frame is larger than {MAX_IMAGE_BYTES >> 20} MiB.")
    return data
