"""Whatever bytes a camera sends: pixels within the limits, or a reason."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.decoding import decode_image
from monitor.settings import LimitSettings
from schemas.errors import InvalidFrameError
from tests.fuzz.bounds import bounded, fuzzed_more
from tests.fuzz.damage import NUMBERS, damaged

LIMITS = LimitSettings(max_frame_bytes=100_000, max_frame_pixels=50_000)
RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (24, 36, 3), np.uint8), (5, 5), 1)
WIDE = PICTURE.astype(np.uint16) * 257
KINDS = [".png", ".jpg", ".bmp", ".tiff", ".webp"]
PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
IMAGES = [cv2.imencode(kind, PICTURE)[1].tobytes() for kind in KINDS]
IMAGES += [cv2.imencode(kind, PICTURE[:, :, 0])[1].tobytes() for kind in KINDS]
IMAGES += [cv2.imencode(kind, WIDE)[1].tobytes() for kind in (".png", ".tiff")]
IMAGES += [cv2.imencode(kind, np.dstack([PICTURE, PICTURE[:, :, 0]]))[1].tobytes() for kind in (".png", ".webp")]
IMAGES += [cv2.imencode(".jpg", PICTURE, PROGRESSIVE)[1].tobytes()]
MAGICS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", *(
    b"RIFF\xff\0\0\0WEBP" + kind for kind in (b"VP8 ", b"VP8L", b"VP8X")
)]  # fmt: skip
CHANNELS = st.sampled_from([1, 3])
SIDES = st.sampled_from([*NUMBERS, 16, 36, 4096, 65_500])
TAGS = [254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339]
# Compressed, and large where it is not.
BOMB = zlib.compress(bytes(20_000_000), 9)


def decode(data: bytes, channels: int) -> None:
    with bounded(InvalidFrameError):
        image = decode_image(data, LIMITS, None, channels)
        assert image.dtype == np.uint8
        assert image.ndim == (2 if channels == 1 else 3)
        assert 0 < image.shape[0] * image.shape[1] <= LIMITS.max_frame_pixels


@fuzzed_more
@given(st.sampled_from(MAGICS), st.binary(max_size=300), CHANNELS)
def test_any_bytes_are_an_image_or_have_a_reason(magic: bytes, rest: bytes, channels: int) -> None:
    decode(magic + rest, channels)


@fuzzed_more
@given(damaged(IMAGES), CHANNELS)
def test_a_damaged_image_is_an_image_or_has_a_reason(data: bytes, channels: int) -> None:
    decode(data, channels)


@fuzzed_more
@given(st.sampled_from(IMAGES), SIDES, SIDES, CHANNELS)
def test_a_size_that_is_only_announced_takes_no_memory(data: bytes, width: int, height: int, channels: int) -> None:
    decode(announce(data, width, height), channels)


def announce(data: bytes, width: int, height: int) -> bytes:
    """Return the image with another size in its header, and checksums that are right."""
    big, little, short = struct.pack(">II", width, height), struct.pack("<II", width, height), width & 0xFFFF
    if data.startswith(b"\x89PNG"):
        head = b"IHDR" + big + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    if data.startswith(b"BM"):
        return data[:18] + little + data[26:]
    if data.startswith(b"RIFF"):
        return data[:21] + little[:4] + data[25:26] + struct.pack("<HH", short, height & 0xFFFF) + data[30:]
    if data.startswith(b"\xff\xd8"):
        place = next(at for at in range(len(data)) if data[at : at + 2] in {b"\xff\xc0", b"\xff\xc2"})
        return data[: place + 5] + struct.pack(">HH", height & 0xFFFF, short) + data[place + 9 :]
    place = struct.unpack_from("<I", data, 4)[0]
    entries = struct.pack("<HHHII", 2, 256, 4, 1, width) + struct.pack("<HHII", 257, 4, 1, height)
    return data[:place] + entries + data[place + 26 :]


@fuzzed_more
@given(
    st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from([1, 3, 4, 16]), st.just(1), SIDES), max_size=8),
    st.sampled_from([1, 5, 8, 32773, 32946]),
    st.booleans(),
    st.sampled_from([256, 1024, 4000]),
    CHANNELS,
)
def test_a_tiff_of_any_tags_is_an_image_or_has_a_reason(
    tags: list[tuple[int, int, int, int]],
    compression: int,
    tiled: bool,  # noqa: FBT001
    tile: int,
    channels: int,
) -> None:
    given = {256: 36, 257: 24, 258: 8, 259: compression, 262: 1, 277: 1, 278: 24}
    offset = 8 + 2 + 12 * (len(tags) + len(given) + 4) + 4
    place = {322: tile, 323: tile, 324: offset, 325: len(BOMB)} if tiled else {273: offset, 279: len(BOMB)}
    entries = tags + [(tag, 4, 1, value) for tag, value in (given | place).items()]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries, key=lambda entry: entry[0]))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)
    decode(head.ljust(offset, b"\0") + BOMB, channels)
