"""What an encoded image says of itself, read from its first bytes: nothing is decoded, so nothing can blow up."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from schemas.errors import InvalidFrameError, Reason

MAX_JPEG_SEGMENTS = 1000
MAX_PNG_CHUNKS = 100_000
JPEG_END = b"\xff\xd9"

_JPEG_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_JPEG_FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_TIFF_SIDES = (256, 257, 322, 323)  # width and height of the image, and of a tile
_TIFF_SHORT, _TIFF_LONG = 3, 4
_PNG_SECOND_CHUNK = 33  # behind the signature and the header
_BMP_CORE_HEADER = 12


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The image's type and its size in pixels; ``complete`` is False when its end is missing for certain.

    ``tile_pixels``: the size of each of its tiles, which are decoded whole, however small the image is.
    """

    content_type: str
    width: int
    height: int
    complete: bool = True
    tile_pixels: int = 0


def read_image_header(data: bytes) -> ImageHeader:
    """Read the header of a PNG, JPEG, BMP, TIFF or WebP image.

    Raises:
        InvalidFrameError: ``NOT_AN_IMAGE`` when it is none of them or its header makes no sense, ``TRUNCATED`` when it
            ends within its header.
    """
    read = next((reader for magic, reader in _READERS.items() if data.startswith(magic)), None)
    if read is None or (read is _read_webp and len(data) >= 12 and data[8:12] != b"WEBP"):  # noqa: PLR2004 - RIFF, size, type
        found = data[:8].hex(" ")
        raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"starts with {found}: neither PNG, JPEG, BMP, TIFF nor WebP")
    try:
        header = read(data)
    except (struct.error, IndexError) as error:
        raise InvalidFrameError(Reason.TRUNCATED, f"ends within its header, after {len(data)} bytes") from error
    if header.width <= 0 or header.height <= 0:
        raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"declares {header.width} x {header.height} pixels")
    return header


def _read_png(data: bytes) -> ImageHeader:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:  # noqa: PLR2004 - as the format says
        raise InvalidFrameError(Reason.NOT_AN_IMAGE, "a PNG whose first chunk is not its header")
    return ImageHeader("image/png", width, height, complete=_has_all_chunks(data))


def _has_all_chunks(data: bytes) -> bool:
    """Return whether a PNG goes on to its end; decoders take memory for a chunk's length before they look for it."""
    position = _PNG_SECOND_CHUNK
    for _ in range(MAX_PNG_CHUNKS):
        if position + 12 > len(data):
            return False
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return bool(position <= len(data))
        if kind == b"IHDR":
            raise InvalidFrameError(Reason.NOT_AN_IMAGE, "a PNG with two headers")
    raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"a PNG with more than {MAX_PNG_CHUNKS} chunks")


def _read_jpeg(data: bytes) -> ImageHeader:
    position, size = 2, None
    for _ in range(MAX_JPEG_SEGMENTS):
        if data[position] != 0xFF:  # noqa: PLR2004 - every marker starts so
            raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"a JPEG without a marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # noqa: PLR2004 - padding before a marker
            position += 1
        elif marker in _JPEG_STANDALONE:
            position += 2
        elif marker == _JPEG_SCAN and size is not None:
            # A thumbnail within the segments before has an end marker of its own; the pixel data escapes its 0xFF.
            return ImageHeader("image/jpeg", *size, complete=data.find(JPEG_END, position) >= 0)
        else:
            (length,) = struct.unpack_from(">H", data, position + 2)
            if marker in _JPEG_FRAME_HEADERS:
                height, width = struct.unpack_from(">HH", data, position + 5)
                size = (width, height)
            position += 2 + length
    raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"a JPEG with more than {MAX_JPEG_SEGMENTS} segments")


def _read_bmp(data: bytes) -> ImageHeader:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == _BMP_CORE_HEADER else "<ii", data, 18)
    return ImageHeader("image/bmp", width, abs(height))  # a negative height: stored from the top


def _read_tiff(data: bytes) -> ImageHeader:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    values: dict[int, int] = {}
    for entry in range(count):
        tag, kind, _, wide = struct.unpack_from(f"{order}HHII", data, directory + 2 + 12 * entry)
        if tag not in _TIFF_SIDES:
            continue
        # A decoder might take the other one, or read the type that is not read here.
        if tag in values or kind not in {_TIFF_SHORT, _TIFF_LONG}:
            raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"a TIFF whose tag {tag} is there twice, or of type {kind}")
        (short,) = struct.unpack_from(f"{order}H", data, directory + 10 + 12 * entry)
        values[tag] = short if kind == _TIFF_SHORT else wide
    width, height, tile_width, tile_height = (values.get(tag, 0) for tag in _TIFF_SIDES)
    if bool(tile_width) != bool(tile_height):
        raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"a TIFF with tiles of {tile_width}x{tile_height} pixels")
    return ImageHeader("image/tiff", width, height, tile_pixels=tile_width * tile_height)


def _read_webp(data: bytes) -> ImageHeader:
    size, _, kind = struct.unpack_from("<I4s4s", data, 4)
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise InvalidFrameError(Reason.NOT_AN_IMAGE, f"a WebP that starts with a chunk {kind!r}")
    return ImageHeader("image/webp", width, height, complete=len(data) >= size + 8)


_READERS: dict[bytes, Callable[[bytes], ImageHeader]] = {
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"\xff\xd8": _read_jpeg,
    b"BM": _read_bmp,
    b"II*\x00": _read_tiff,
    b"MM\x00*": _read_tiff,
    b"RIFF": _read_webp,
}
