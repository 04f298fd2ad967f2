"""Routes in the shapes of older projects, so that their clients work unchanged."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import io
import string

from aiohttp import web

from edge_face.errors import ImageError, RequestError
from edge_face.events import Encoding, Person
from edge_face.people import StillFace
from edge_face.web import schema
from edge_face.web.forms import IMAGES, MAX_IMAGE_BYTES, ZIP, FileField, read_form
from edge_face.web.people import PhotoWork
from edge_face.web.replies import Refusal, reply
from edge_face.web.services import Route
from edge_face.web.spec import Spec, texts_of

PATHS = frozenset({"/register", "/unregister", "/faces", "/register-faces", "/process-frame/", "/process-frame"})
"""Where an error also says `"success": false`."""

_FRAME = FileField(("frame",), MAX_IMAGE_BYTES * 4 // 3 + 100_000)  # base64 is longer by a third, and has line ends
_BASE64 = string.ascii_letters.encode() + string.digits.encode() + b"+/="
_STEP = 256 * 1024  # a multiple of 4
_LONGEST_HEAD = 1024
_URL_SAFE = bytes.maketrans(b"-_ ", b"+/+")  # a plus sign that was not escaped in a form arrives as a blank

_REGISTER = Spec("Enrol", schema.Done, form=schema.EnrolForm, files=IMAGES, errors=(409,))
_UNREGISTER = Spec("Erase a person", schema.Done, form=schema.NameForm, errors=(404,))
_FACES = Spec("Everybody's name", list[str])
_REGISTER_FACES = Spec(
    "Enrol from a ZIP; 422 when every file was refused",
    schema.RegisterFaces,
    form=schema.ForceForm,
    files=ZIP,
    others={422: schema.RegisterFaces},
)
_PROCESS_FRAME = Spec("The largest face: who, where, and dlib's encoding", schema.ProcessedFrame, files=_FRAME)


class DropIn:
    def __init__(self, work: PhotoWork, pseudonym_key: bytes) -> None:
        self._work = work
        self._people = work.people
        self._key = pseudonym_key

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/register", self.register, "admin", _REGISTER),
            Route("POST", "/unregister", self.unregister, "admin", _UNREGISTER),
            Route("GET", "/faces", self.faces, "viewer", _FACES),
            Route("POST", "/register-faces", self.register_faces, "admin", _REGISTER_FACES),
            Route("POST", "/process-frame/", self.process_frame, "admin", _PROCESS_FRAME),
            Route("POST", "/process-frame", self.process_frame, "admin"),
        ]

    async def register(self, request: web.Request) -> web.Response:
        person = await self._work.enrol(request)
        return reply({"success": True, "message": f"{person.name} is registered."})

    async def unregister(self, request: web.Request) -> web.Response:
        person = await self._people.remove(texts_of((await read_form(request)).texts, schema.NameForm).name, "name")
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
            still = await self._people.recognise(await asyncio.to_thread(image_bytes, upload.data))
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
    start = 0
    if data[:_LONGEST_HEAD].lstrip()[:5].lower() == b"data:":
        start = data.find(b",", 0, _LONGEST_HEAD) + 1
        if not data[:start].rstrip(b", ").lower().endswith(b";base64"):
            raise RequestError("A data: URL must hold base64.", "bad_base64")
    text = _base64_text(data, start)
    if text is not None:  # no picture format consists of such bytes alone
        data = _decoded(text)
    elif start:
        raise RequestError("The base64 text is damaged.", "bad_base64")
    if len(data) > MAX_IMAGE_BYTES:
        raise Refusal(413, "too_large", f"The frame is larger than {MAX_IMAGE_BYTES >> 20} MiB.")
    return data


def _base64_text(data: bytes, start: int) -> bytearray | None:
    """From there on, without line ends and padding; None when there is something else than base64.

    Piece by piece: one call for all of it would hold up decisions, also from another thread.
    """
    text = bytearray()
    end = len(data.rstrip())
    for at in range(start, end, _STEP):
        piece = data[at : min(at + _STEP, end)]
        piece = (piece if text else piece.lstrip()).translate(_URL_SAFE, b"\r\n\t")
        if piece.translate(None, _BASE64):
            return None
        text += piece
    for _ in range(2):
        if text.endswith(b"="):
            del text[-1]
    return text if text else None


def _decoded(text: bytearray) -> bytes:
    text += b"=" * (-len(text) % 4)
    data = io.BytesIO()
    try:
        for at in range(0, len(text), _STEP):
            data.write(binascii.a2b_base64(bytes(text[at : at + _STEP]), strict_mode=True))
    except binascii.Error:
        raise RequestError("The base64 text is damaged.", "bad_base64") from None
    return data.getvalue()
