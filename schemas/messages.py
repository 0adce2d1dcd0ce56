"""Frame and inspection events on Kafka: CloudEvents 1.0, Kafka binding, binary mode (``ce_*`` headers)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import uuid_utils
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from schemas.errors import InvalidFrameError, Reason

FRAME_TYPE = "paedid.frame.captured.v1"
INSPECTION_TYPE = "paedid.frame.inspected.v1"
SPEC_VERSION = "1.0"
MAX_HEADERS = 64
MAX_HEADER_BYTES = 4096

Headers = tuple[tuple[str, bytes], ...]
Identifier = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\-]*$")]
# No control characters: PostgreSQL cannot store NUL, and one such frame would hold up its whole batch for ever.
ShortText = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _require_rfc3339(value: object) -> object:
    """Refuse text such as '1700000000', of which would be guessed whether it is seconds or milliseconds."""
    if isinstance(value, str) and not _RFC3339.fullmatch(value):
        msg = "not a time as in RFC 3339, e.g. 2026-01-31T23:59:59.123Z"
        raise ValueError(msg)
    return value


# Times near datetime's ends overflow when they are converted to UTC.
CaptureTime = Annotated[
    AwareDatetime,
    BeforeValidator(_require_rfc3339),
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
]


class Verdict(StrEnum):
    """What the line is told about a part. ``UNINSPECTED`` fails safe: it is never 'normal'."""

    NORMAL = "normal"
    DEFECT = "defect"
    UNINSPECTED = "uninspected"


def new_frame_id() -> str:
    """Return a fresh frame id: a UUIDv7, so that ids sort by time."""
    return str(uuid_utils.uuid7())


class FrameEvent(BaseModel):
    """The metadata of one camera frame; its encoded image is the message's value.

    On the wire: key = camera, ``ce_id`` = frame id, ``ce_time`` = capture time, ``ce_source`` = ``/cameras/<camera>``,
    ``content-type`` = the image's, and the extensions ``ce_partserial``, ``ce_lot``, ``ce_deadlinems``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frame_id: Identifier
    camera: Identifier
    captured_at: CaptureTime
    content_type: Annotated[str, Field(max_length=64, pattern=r"^image/[a-z0-9.+\-]+$")] = "image/png"
    part_serial: ShortText | None = None
    lot: ShortText | None = None
    deadline_ms: Annotated[int, Field(gt=0, le=86_400_000)] | None = None

    def to_headers(self) -> list[tuple[str, bytes]]:
        """Return the Kafka headers that carry this event."""
        headers = {
            "ce_specversion": SPEC_VERSION,
            "ce_type": FRAME_TYPE,
            "ce_source": f"/cameras/{self.camera}",
            "ce_id": self.frame_id,
            "ce_time": self.captured_at.astimezone(UTC).isoformat(),
            "content-type": self.content_type,
            "ce_partserial": self.part_serial,
            "ce_lot": self.lot,
            "ce_deadlinems": None if self.deadline_ms is None else str(self.deadline_ms),
        }
        return [(name, value.encode()) for name, value in headers.items() if value is not None]

    @classmethod
    def from_record(cls, key: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> FrameEvent:
        """Read an event from a Kafka record's key and headers.

        Raises:
            InvalidFrameError: the key or a required header is missing, malformed or too large.
        """
        fields = _decode_headers(headers)
        required = ("ce_id", "ce_time", "ce_type", "content-type")
        missing = [name for name in required if name not in fields]
        if not key:
            missing.append("key (the camera id)")
        if missing or key is None:
            raise InvalidFrameError(Reason.MISSING_HEADERS, f"missing {', '.join(missing)}")
        if fields["ce_type"] != FRAME_TYPE:
            raise InvalidFrameError(
                Reason.INVALID_HEADERS, f"ce_type is {fields['ce_type']!r}, expected {FRAME_TYPE!r}"
            )
        try:
            return cls.model_validate(
                {
                    "frame_id": fields["ce_id"],
                    "camera": key.decode(),
                    "captured_at": fields["ce_time"],
                    "content_type": fields["content-type"],
                    "part_serial": fields.get("ce_partserial"),
                    "lot": fields.get("ce_lot"),
                    "deadline_ms": fields.get("ce_deadlinems"),
                }
            )
        except UnicodeDecodeError as error:
            raise InvalidFrameError(Reason.INVALID_HEADERS, "the key (camera id) is not UTF-8") from error
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidFrameError(Reason.INVALID_HEADERS, problems) from error


def _decode_headers(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for count, (name, value) in enumerate(headers):
        if count >= MAX_HEADERS or len(name) > MAX_HEADER_BYTES or len(value or b"") > MAX_HEADER_BYTES:
            raise InvalidFrameError(
                Reason.INVALID_HEADERS, f"more than {MAX_HEADERS} headers, or one above {MAX_HEADER_BYTES} bytes"
            )
        try:
            fields[name.lower()] = (value or b"").decode()
        except UnicodeDecodeError as error:
            raise InvalidFrameError(Reason.INVALID_HEADERS, f"header {name!r} is not UTF-8") from error
    return fields


class RegionMessage(BaseModel):
    """One connected defective region, in pixels of the frame as the camera sent it.

    The measures of its shape are those of ``monitor.core.shape``; None in what was stored before there were any, and
    the millimetres also where the settings do not say how large a pixel is.

    Attributes:
        x, y, width, height: the upright box that holds it.
        area: its pixels.
        centroid_x, centroid_y: the mean of its pixels' centres.
        mean_residual, max_residual: in units of the normals' own spread.
        length, breadth: the sides of the smallest rectangle, turned as need be, that holds it.
        aspect_ratio: length / breadth, >= 1.
        orientation: of ``length``, in degrees in [0, 180) from x (to the right) towards y (down).
        solidity: the share of its convex hull that it fills, in (0, 1].
        path_length, mean_width: the length along it, all branches together, and area / path_length: for cracks.
    """

    model_config = ConfigDict(frozen=True)

    x: int
    y: int
    width: int
    height: int
    area: float
    centroid_x: float
    centroid_y: float
    mean_residual: float
    max_residual: float
    length: float | None = None
    breadth: float | None = None
    aspect_ratio: float | None = None
    orientation: float | None = None
    solidity: float | None = None
    path_length: float | None = None
    mean_width: float | None = None
    area_mm2: float | None = None
    length_mm: float | None = None
    breadth_mm: float | None = None
    path_length_mm: float | None = None
    mean_width_mm: float | None = None


class InspectionEvent(BaseModel):
    """The result of one frame, published to topic ``inspections``; at least once, with ``ce_id`` to drop repeats by."""

    model_config = ConfigDict(frozen=True)

    frame_id: str
    camera: str
    part_serial: str | None
    lot: str | None
    verdict: Verdict
    reason: str | None
    score: float | None
    threshold: float | None
    defect_area: float | None
    # The largest, and how many there are. None: not inspected, or by a program that did not count them.
    regions: tuple[RegionMessage, ...]
    region_count: int | None = None
    model_id: str
    bank_version: int | None
    captured_at: AwareDatetime
    inspected_at: AwareDatetime

    @property
    def dedupe_id(self) -> str:
        """The ``ce_id`` of this event: one inspection per frame, so the frame id names it."""
        return f"inspection:{self.frame_id}"

    def to_headers(self) -> list[tuple[str, str]]:
        """Return the CloudEvents headers, as text (the outbox stores them as JSON)."""
        return [
            ("ce_specversion", SPEC_VERSION),
            ("ce_type", INSPECTION_TYPE),
            ("ce_source", f"/cameras/{self.camera}"),
            ("ce_id", self.dedupe_id),
            ("ce_time", self.inspected_at.astimezone(UTC).isoformat()),
            ("content-type", "application/json"),
        ]

    def to_json(self) -> bytes:
        """Return the event's body: compact JSON."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode()


def utc_now() -> datetime:
    """Return the current time, aware, in UTC."""
    return datetime.now(UTC)
