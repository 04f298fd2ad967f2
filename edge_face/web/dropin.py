"""Routes in the shapes of older projects, so that their clients work unchanged."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import io
import os
import string
from typing import Any

from aiohttp import web

from edge_face.errors import ImageError, RequestError
from edge_face.events import Encoding, InView, Person
from edge_face.people import Still, StillFace
from edge_face.web import schema
from edge_face.web.forms import IMAGES, MAX_IMAGE_BYTES, ZIP, FileField, read_form
from edge_face.web.people import PhotoWork
from edge_face.web.replies import Refusal, reply
from edge_face.web.services import Route, Services
from edge_face.web.spec import Spec, convert_body, object_of, texts_of

PATHS = frozenset({"/register", "/unregister", "/faces", "/register-faces", "/process-frame/", "/process-frame"})
"""Where an error also says `"success": false`."""

_FRAME = FileField(("frame",), MAX_IMAGE_BYTES * 4 // 3 + 100_000)  # base64 is longer by a third, and has line ends
_BASE64 = string.ascii_letters.encode() + string.digits.encode() + b"+/="
_STEP = 256 * 1024  # a multiple of 4
_LONGEST_HEAD = 1024
_DEEPEST = 20
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
_ONE = FileField(("image", "file", "frame"))
_FILE = FileField(("file",))
_MATCH = Spec("Who is in a picture: one name", schema.Matched, files=_ONE)
_RECOGNISE = Spec(
    "Who is in a picture: names and ids, and at the end how many are unknown",
    list[schema.Recognised],
    files=_FILE,
)
_CREATE = Spec("Keep what is known of a person", schema.StudentCreated, body=schema.NewStudent, errors=(409,))
_HASH = Spec("A pseudonym of who is now in view", schema.SeenHash)
_PROCESS_FRAME = Spec("The largest face: who, where, and dlib's encoding", schema.ProcessedFrame, files=_FRAME)


class DropIn:
    def __init__(self, work: PhotoWork, services: Services) -> None:
        self._work = work
        self._people = work.people
        self._services = services
        self._key = services.pseudonym_key
        self._nonce = os.urandom(16)
        """Track numbers begin anew with each start."""

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/register", self.register, "admin", _REGISTER),
            Route("POST", "/unregister", self.unregister, "admin", _UNREGISTER),
            Route("GET", "/faces", self.faces, "viewer", _FACES),
            Route("POST", "/register-faces", self.register_faces, "admin", _REGISTER_FACES),
            Route("POST", "/match", self.match, "admin", _MATCH),
            Route("POST", "/recognize_faces", self.recognise, "admin", _RECOGNISE),
            Route("POST", "/create-student", self.create_student, "admin", _CREATE),
            Route("GET", "/hash", self.hash, "viewer", _HASH),
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

    async def match(self, request: web.Request) -> web.Response:
        """The largest face that is somebody."""
        still = await self._still(request, _ONE)
        names = [face.person.name for face in still.faces if face.status == "PASS" and face.person]
        return reply({"match": names[0] if names else "Unknown"})

    async def recognise(self, request: web.Request) -> web.Response:
        """Each person once, the largest face first."""
        still = await self._still(request, _FILE)
        found = {face.person.id: face.person for face in still.faces if face.status == "PASS" and face.person}
        known = [schema.Recognised(person.name, person.external_id) for person in found.values()]
        return reply([*known, schema.Recognised(unknown_faces=sum(face.status != "PASS" for face in still.faces))])

    async def _still(self, request: web.Request, field: FileField) -> Still:
        async with self._work.slots.taken():
            (upload,) = (await read_form(request, field)).files
            return await self._people.recognise(upload.data)

    async def create_student(self, request: web.Request) -> web.Response:
        body = await object_of(request)
        said = convert_body(body, schema.NewStudent)
        more = {key: value for key, value in body.items() if key not in ("name", "id")}
        if _is_deep(more):
            raise RequestError(f"The body is nested more than {_DEEPEST} levels deep.", "bad_field")
        external_id = None if said.id is None else str(said.id)
        services = self._services
        person = await services.thread.run(services.store.add_student, said.name, external_id, more)
        return reply(schema.StudentCreated("Student created successfully", person.external_id or person.id))

    async def hash(self, _request: web.Request) -> web.Response:
        """Of the largest face that is decided; null while there is none: nobody is there, or the votes are open."""
        decided = [seen for seen in self._services.in_view() if seen.verdict.reason != "deciding"]
        largest = max(decided, key=lambda seen: seen.verdict.box.area, default=None)
        return reply(schema.SeenHash(self._pseudonym(largest) if largest else None))

    def _pseudonym(self, seen: InView) -> str:
        """That of an unknown visitor who is kept lasts as long; another stranger's as long as the track, and nothing of
        it can be traced to the face or to another day.
        """
        verdict = seen.verdict
        if verdict.status == "PASS" and verdict.person:
            return person_pseudonym(self._key, verdict.person)
        if seen.visitor:
            return hmac.new(self._key, b"visitor:" + seen.visitor.encode(), hashlib.sha256).hexdigest()
        track = b"%s:%d:%s" % (self._nonce, verdict.track, seen.camera.encode())
        return hmac.new(self._key, b"track:" + track, hashlib.sha256).hexdigest()

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
    passed = face.person if face.status == "PASS" else None  # whoever is blocked is a stranger here
    return person_pseudonym(key, passed) if passed else encoding_pseudonym(key, face.face.encoding)


def _is_deep(value: Any, left: int = _DEEPEST) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not left or any(_is_deep(each, left - 1) for each in inner)


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
