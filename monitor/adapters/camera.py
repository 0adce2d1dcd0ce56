"""Where a camera agent's pictures come from: a folder of images, a video file, a network stream or a device."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.image_header import read_image_header
from schemas.errors import ConfigurationError, InvalidFrameError

Encoding = Literal["png", "jpeg"]

CONTENT_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}
STREAM_TIMEOUT_MS = 10_000
REOPEN_S = 1.0
SOURCE_KEY = "camera source"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Capture:
    """One encoded picture, as it goes to Kafka."""

    data: bytes
    content_type: str
    part_serial: str | None = None


class CaptureSource(Protocol):
    """Pictures, one after the other. A ``live`` source does not wait: what is not taken in time is gone."""

    live: bool

    def captures(self, stop: threading.Event) -> Iterator[Capture]:
        """Yield the pictures until the source ends or ``stop`` is set."""


def open_source(source: str, encoding: Encoding, *, rate: float | None, part_serials: bool) -> CaptureSource:
    """Open what SOURCE names: a folder, an image, a video file, a URL, or a device's number.

    Args:
        source: as the user wrote it.
        encoding: how video frames are encoded; images of a folder go as they are.
        rate: frames per second that are taken from a live source; None: all.
        part_serials: whether an image file's name without its suffix is the serial number of the part.

    Raises:
        ConfigurationError: there is no such thing, or it cannot be opened.
    """
    path = Path(source)
    if path.is_dir():
        return ImageFiles(path, part_serials=part_serials)
    if path.is_file() and path.suffix.lower() in CONTENT_TYPES:
        return ImageFiles(path, part_serials=part_serials)
    if path.is_file() or source.isdigit() or "://" in source:
        return Video(source, encoding, live=not path.is_file(), rate=rate)
    remedy = "Name a folder of images, a video file, a URL such as rtsp://host/stream, or a device's number."
    raise ConfigurationError(SOURCE_KEY, redact(source), "there is no such file, folder or device", remedy)


def redact(source: str) -> str:
    """Return the source without the password that a stream's URL may hold."""
    return re.sub(r"//[^/]*@", "//...@", source)


class ImageFiles:
    """The image files of a folder by name, each as its original bytes."""

    live = False

    def __init__(self, path: Path, *, part_serials: bool) -> None:
        self._part_serials = part_serials
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        self._paths = [file for file in found if file.suffix.lower() in CONTENT_TYPES and file.is_file()]
        if not self._paths:
            remedy = f"Put images into it ({', '.join(CONTENT_TYPES)}) or name another folder."
            raise ConfigurationError(SOURCE_KEY, str(path), "the folder holds no images", remedy)

    def captures(self, stop: threading.Event) -> Iterator[Capture]:
        """Yield the images."""
        for path in self._paths:
            if stop.is_set():
                return
            try:
                data = path.read_bytes()
            except OSError as error:
                log.warning("image skipped: it cannot be read", path=str(path), error=str(error))
                continue
            serial = path.stem if self._part_serials and path.stem.isprintable() else None
            yield Capture(data, _content_type(path, data), serial)


def _content_type(path: Path, data: bytes) -> str:
    try:
        return read_image_header(data).content_type
    except InvalidFrameError:
        # Sent all the same: the worker's dead letters show it, with the reason.
        return CONTENT_TYPES[path.suffix.lower()]


class Video:
    """Frames of a video file, a stream or a device, encoded anew; a live source that breaks off is opened again."""

    def __init__(self, source: str, encoding: Encoding, *, live: bool, rate: float | None) -> None:
        self.live = live
        self._source = source
        self._encoding = encoding
        self._period = 1 / rate if rate and live else 0.0
        self._video: cv2.VideoCapture | None = self._open()
        if self._video is None:
            remedy = "Check that it is there and plays, e.g. with ffplay." if "://" in source else "Check the source."
            raise ConfigurationError(SOURCE_KEY, redact(source), "OpenCV cannot open it", remedy)

    def captures(self, stop: threading.Event) -> Iterator[Capture]:
        """Yield the frames; of a live source no more than its rate, always the newest."""
        due = time.monotonic()
        try:
            while not stop.is_set():
                if self._video is None or not self._video.grab():
                    if not self._reopen(stop):
                        break
                elif time.monotonic() >= due:
                    due = max(due + self._period, time.monotonic())
                    found, frame = self._video.retrieve()
                    if found:
                        yield self._encode(frame)
        finally:
            if self._video is not None:
                self._video.release()
                self._video = None

    def _open(self) -> cv2.VideoCapture | None:
        if self._source.isdigit() and self.live:
            video = cv2.VideoCapture(int(self._source))
        else:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, STREAM_TIMEOUT_MS]
            video = cv2.VideoCapture(self._source, cv2.CAP_ANY, timeouts if self.live else [])
        return video if video.isOpened() else None

    def _reopen(self, stop: threading.Event) -> bool:
        """Return False when there is nothing to open again: a file that was read before its end was reached."""
        if self._video is None and not self.live:
            self._video = self._open()  # played once more
            return self._video is not None
        if not self.live:
            return False
        log.warning("camera gone; opening it again until it answers", source=redact(self._source))
        while self._video is None or not self._video.isOpened() or not self._video.grab():
            if stop.wait(REOPEN_S):
                return False
            self._video = self._open()
        log.info("camera is back", source=redact(self._source))
        return True

    def _encode(self, frame: NDArray[np.integer | np.floating]) -> Capture:
        if self._encoding == "png":
            _, data = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        else:
            _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
        return Capture(data.tobytes(), f"image/{self._encoding}")
