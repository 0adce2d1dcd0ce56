"""The camera agent of the storm: numbered frames of three cameras, and it knows what the broker has acknowledged."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Collection
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Final

import cv2

from deploy.local.quick import LINE, SIZE
from monitor.adapters.kafka import FrameSender
from monitor.settings import KafkaSettings
from schemas.messages import FrameEvent, new_frame_id, utc_now

# Of three of the four partitions, so that two workers both have some.
CAMERAS: Final = ("left", "press", "south")
SPOOL_BYTES: Final = 4 * 2**20
PICTURES: Final = 40
LATE_MS: Final = 100
LONG_AGO: Final = timedelta(hours=1)


class Kind(Enum):
    """What a frame shows, and what is to become of it."""

    GOOD = "good"
    ODD = "odd"  # a good part unlike any other: flagged, and confirmed as normal
    DEFECT = "defect"
    LATE = "late"  # past its deadline: uninspected
    BROKEN = "broken"  # no image: a dead letter


# By the frame's number, modulo the length.
KINDS: Final = [Kind.GOOD] * 20
KINDS[3] = KINDS[11] = Kind.ODD
KINDS[7] = Kind.BROKEN
KINDS[13] = Kind.LATE
KINDS[17] = Kind.DEFECT


class Feed:
    """Sends frames at an even pace, however the servers are; owned by one thread.

    Args:
        settings: the broker and the topic.
        rate: frames a second.
    """

    def __init__(self, settings: KafkaSettings, rate: float) -> None:
        self.frame_ids: list[str] = []  # by number
        self.kinds: dict[str, Kind] = {}
        self.resent = 0
        self._period = 1 / rate
        self._due = time.monotonic()
        self._sender = FrameSender(settings, SPOOL_BYTES)
        self._offered: list[int] = []  # numbers, in the order in which the broker acknowledges them
        self._waiting: deque[int] = deque()

    def tick(self, *, more: bool) -> None:
        """Send what is due. ``more``: whether new frames are still to come."""
        now = time.monotonic()
        while more and now >= self._due and not self._waiting:
            self._due = max(self._due + self._period, now - 1.0)  # what an outage held up is not sent all at once
            self._waiting.append(self._new_frame())
        while self._waiting and self._sender.offer(*_frame(self._waiting[0], self.frame_ids[self._waiting[0]])):
            self._offered.append(self._waiting.popleft())
        self._sender.collect()

    @property
    def waiting(self) -> int:
        """How many frames the broker has not acknowledged."""
        return self._sender.waiting + len(self._waiting)

    def acknowledged(self) -> set[str]:
        """Return the ids of the frames that the broker has said it has."""
        self._sender.collect()
        return {self.frame_ids[number] for number in self._offered[: self._sender.acknowledged]}

    def send_again(self, frame_ids: Collection[str]) -> None:
        """Send frames again, under the same ids: those that the broker took and forgot."""
        wanted = set(frame_ids)
        self._waiting.extend(number for number, frame_id in enumerate(self.frame_ids) if frame_id in wanted)
        self.resent += len(wanted)

    def close(self) -> None:
        """Disconnect."""
        self._sender.close()

    def _new_frame(self) -> int:
        number = len(self.frame_ids)
        self.frame_ids.append(new_frame_id())
        self.kinds[self.frame_ids[-1]] = kind_of(number)
        return number


def kind_of(number: int) -> Kind:
    """Return what the frame with this number shows."""
    return KINDS[number % len(KINDS)]


def camera_of(number: int) -> str:
    """Return which camera took the frame with this number."""
    return CAMERAS[number % len(CAMERAS)]


def _frame(number: int, frame_id: str) -> tuple[FrameEvent, bytes]:
    late = kind_of(number) is Kind.LATE
    event = FrameEvent(
        frame_id=frame_id,
        camera=camera_of(number),
        captured_at=utc_now() - (LONG_AGO if late else timedelta()),
        deadline_ms=LATE_MS if late else None,
    )
    return event, _picture(kind_of(number), number)


def _picture(kind: Kind, number: int) -> bytes:
    if kind is Kind.BROKEN:
        return b"no image"
    if kind is Kind.ODD:
        return _odd_picture(number)
    return _usual_picture(kind, number % PICTURES)


@cache
def _usual_picture(kind: Kind, index: int) -> bytes:
    part = LINE.defective_part(index, "missing_spot") if kind is Kind.DEFECT else LINE.good_part(1000 + index)
    return cv2.imencode(".png", part.image)[1].tobytes()


def _odd_picture(number: int) -> bytes:
    """Return a good part with a dark patch somewhere, of some size, that hardly any other has."""
    image = LINE.good_part(5000 + number).image.copy()
    chance = random.Random(number)  # noqa: S311 - no secret
    row, column = chance.randrange(SIZE - 16), chance.randrange(SIZE - 16)
    height, width = chance.randint(8, 14), chance.randint(8, 14)
    image[row : row + height, column : column + width] = chance.randrange(40)
    return cv2.imencode(".png", image)[1].tobytes()
