"""What requests and replies are made of, declared once: requests are checked against it, and /openapi.json shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from edge_face.events import CameraState
from edge_face.queries import MAX_LIMIT
from edge_face.tokens import Role

Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT, description="Most items of a page.")]
Cursor = Annotated[str, Meta(description="`next_cursor` of the page before.")]
Time = Annotated[str, Meta(description="Unix seconds, or ISO 8601; without a zone, the local time of the box.")]
UnixTime = Annotated[float, Meta(description="Unix seconds.")]
PixelBox = Annotated[list[int], Meta(min_length=4, max_length=4, description="[x1, y1, x2, y2], full-frame pixels.")]
Force = Annotated[bool, Meta(description="Also who would pass as somebody else, or photos that disagree.")]
DecidedStatus = Literal["PASS", "REJECT"]


class Error(Struct):
    error: Annotated[str, Meta(description="A word for programs.")]
    message: Annotated[str, Meta(description="A sentence for people.")]
    success: Annotated[bool, Meta(description="Always false; on routes of older projects only.")] = False


class ReloadedCameras(Struct):
    added: list[str]
    removed: list[str]
    restarted: list[str]


class Reloaded(Struct):
    changed: Annotated[list[str], Meta(description="Keys that are in force by now, as `[section] key`.")]
    needs_restart: Annotated[list[str], Meta(description="Keys that stay as they were until the next start.")]
    cameras: Annotated[ReloadedCameras, Meta(description="All others went on and noticed nothing.")]


class ConfigRefused(Struct):
    error: str
    message: str
    problems: Annotated[list[str], Meta(description="All that is wrong, as `[section] key: reason`.")]


class PeopleQuery(Struct):
    q: Annotated[str, Meta(description="A part of a name, id, external id or group.")] | None = None
    limit: Limit | None = None
    cursor: Cursor | None = None


class AttendanceQuery(Struct):
    since: Time | None = None
    until: Time | None = None
    status: Literal["PASS", "REJECT", "pass", "reject"] | None = None
    person: Annotated[str, Meta(description="A name or an id.")] | None = None
    camera: str | None = None


class EventsQuery(AttendanceQuery):
    limit: Limit | None = None
    cursor: Cursor | None = None
    format: (
        Annotated[
            Literal["json", "csv", "xlsx"], Meta(description="Instead of `Accept`. CSV and XLSX hold all that matches.")
        ]
        | None
    ) = None


class StreamQuery(Struct):
    frame: Annotated[Literal["0", "1"], Meta(description="0: without the picture.")] | None = None


class StreamingQuery(Struct):
    camera: Annotated[str, Meta(description="Default: the first.")] | None = None


class EnrolForm(Struct):
    name: str
    external_id: str | None = None
    force: Force = False


class EnrolView(EnrolForm, forbid_unknown_fields=True):
    pass


class UnknownsQuery(Struct):
    ignored: Annotated[bool, Meta(description="Those that are ignored, instead of the others.")] = False
    limit: Limit | None = None
    cursor: Cursor | None = None


class DeleteUnknownQuery(Struct):
    erase: Annotated[bool, Meta(description="Forget the visitor wholly; whoever comes again is listed again.")] = False


class EnrolUnknownForm(Struct):
    name: Annotated[str, Meta(description="Of a new person, or of one who is there.")] | None = None
    person_id: Annotated[str, Meta(description="Instead of a name: add the face to this person.")] | None = None
    external_id: str | None = None
    group: str | None = None
    force: Force = False


class EnrolUnknown(EnrolUnknownForm, forbid_unknown_fields=True):
    pass


class UnknownVisitor(Struct):
    id: Annotated[str, Meta(description="A UUID.")]
    first_seen: UnixTime
    last_seen: UnixTime
    visits: int
    cameras: Annotated[list[str], Meta(description="Where it was seen.")]
    faces: Annotated[int, Meta(description="How many views of the face are kept.")]
    ignored: Annotated[bool, Meta(description="Not listed, and without a picture.")]
    clock: Literal["synced", "unsynced"] = "synced"


class UnknownPage(Struct):
    items: list[UnknownVisitor]
    next_cursor: str | None


class ForceForm(Struct):
    force: Force = False


class NameForm(Struct):
    name: str


class Nothing(Struct):
    pass


class _Rules(Struct):
    group: Annotated[str | None, Meta(description="A word of your own; it decides nothing.")]
    valid_from: Annotated[float | None, Meta(description="Unix seconds; not let in before.")]
    valid_until: Annotated[float | None, Meta(description="Unix seconds; not let in from then on.")]
    blocked: Annotated[bool, Meta(description="Never let in.")]


class Person(_Rules):
    id: Annotated[str, Meta(description="An ASCII slug that never changes.")]
    name: str
    external_id: str | None
    faces: Annotated[int, Meta(description="How many photos are enrolled.")]
    created_at: UnixTime


class EnrolledFace(Struct):
    id: int
    created_at: UnixTime
    thumbnail: Annotated[bool, Meta(description="Whether a picture of it is kept.")]


class PersonDetail(_Rules):
    id: str
    name: str
    external_id: str | None
    faces: Annotated[list[EnrolledFace], Meta(description="Oldest first.")]
    created_at: UnixTime


class PersonPatch(Struct, forbid_unknown_fields=True):
    """What is absent stays; null takes a value away."""

    name: str | UnsetType = UNSET
    external_id: str | UnsetType | None = UNSET
    group: str | UnsetType | None = UNSET
    valid_from: Time | float | UnsetType | None = UNSET
    valid_until: Time | float | UnsetType | None = UNSET
    blocked: bool | UnsetType = UNSET


class PersonPage(Struct):
    items: list[Person]
    next_cursor: str | None


class Camera(Struct):
    id: str
    state: CameraState
    detail: Annotated[str, Meta(description="What it is, or why it is lost.")]
    paused: Annotated[bool, Meta(description="Recognition is off.")]


class CameraPage(Struct):
    items: list[Camera]
    next_cursor: None


class FileReport(Struct):
    file: str
    name: str
    person_id: str | None
    error: Annotated[str | None, Meta(description="null where it was enrolled.")]
    message: str


class BatchReport(Struct):
    items: list[FileReport]
    enrolled: int
    refused: int
    total: int


class StillFace(Struct):
    box: PixelBox
    status: DecidedStatus
    reason: str
    name: str | None
    person_id: str | None
    distance: float | None
    margin: float | None
    score: float | None


class Still(Struct):
    file: str | None
    width: int
    height: int
    faces: list[StillFace]


class Liveness(Struct):
    level: str
    result: str | None


class Event(Struct):
    type: Literal["face_event"]
    id: str
    seq: int
    node: str
    camera: str
    status: DecidedStatus
    reason: str
    name: str | None
    person_id: str | None
    external_id: str | None
    distance: float | None
    threshold: float | None
    margin: float | None
    score: float | None
    rule: str | None
    box: PixelBox
    track: int
    frames: int
    liveness: Liveness
    timestamp: UnixTime
    time: str
    expires_at: UnixTime
    latency_ms: float
    demo: bool = False
    clock: Literal["synced", "unsynced"] = "synced"


class Missed(Struct):
    first_seq: int
    last_seq: int
    since: str
    until: str
    reason: str


class EventPage(Struct):
    items: list[Event]
    next_cursor: str | None
    missed: Annotated[list[Missed], Meta(description="What could not be stored in that time; absent if nothing.")] = []


class AttendanceRow(Struct):
    id: int
    name: str | None
    person_id: str | None
    external_id: str | None
    status: Literal["PASS"]
    source: Annotated[Literal["camera", "upload"], Meta(description="upload: a picture sent to /ws.")]
    camera: str | None
    seq: Annotated[int | None, Meta(description="Of the event; null for an upload.")]
    timestamp: UnixTime
    time: str
    clock: Literal["synced", "unsynced"] = "synced"


class AttendancePage(Struct):
    items: list[AttendanceRow]
    next_cursor: str | None


class AttendanceDay(Struct):
    date: str
    name: str | None
    person_id: str | None
    external_id: str | None
    first: Annotated[str, Meta(description="First sight, local time with its offset.")]
    last: str
    visits: int
    first_timestamp: UnixTime
    last_timestamp: UnixTime


class AttendanceDayPage(Struct):
    items: list[AttendanceDay]
    next_cursor: str | None


class LoginQuery(Struct):
    next: Annotated[str, Meta(description="The path of this server that the login leads to.")] | None = None
    error: Annotated[str, Meta(description="Why the login before failed.")] | None = None


class LoginForm(Struct):
    token: str
    next: Annotated[str, Meta(description="As in the page's address.")] | None = None


class Login(Struct):
    token: str


class LoggedIn(Struct):
    role: Role
    expires_in_s: Annotated[float, Meta(description="Sooner when it is not used for an hour.")]


class Ticket(Struct):
    ticket: str
    expires_in_s: float


class Done(Struct):
    success: bool
    message: str


class RegisterReport(Struct):
    registered: list[str]
    failed: list[dict[str, str]]
    total: int


class RegisterFaces(Struct):
    success: bool
    result: RegisterReport
    error: str = ""
    message: str = ""


class Matched(Struct):
    match: Annotated[str, Meta(description="The name, or Unknown.")]


class Recognised(Struct, rename={"name": "Student Name", "id": "ID"}):
    """A person, or, as the last item, how many faces are nobody's."""

    name: str | UnsetType = UNSET
    id: Annotated[str | UnsetType | None, Meta(description="The external id.")] = UNSET
    unknown_faces: int | UnsetType = UNSET


class NewStudent(Struct):
    name: str
    id: Annotated[str | int | None, Meta(description="The external id. Any other fields are kept.")] = None


class StudentCreated(Struct):
    status: str
    student_id: str


class SeenHash(Struct):
    hash: str | None


class ProcessedFrame(Struct):
    hash: str
    coords: Annotated[list[int], Meta(min_length=4, max_length=4, description="[x, y, width, height] of the face.")]
    embedding: Annotated[list[float], Meta(min_length=128, max_length=128, description="dlib's encoding.")]
