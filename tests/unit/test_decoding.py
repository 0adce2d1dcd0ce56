from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.decoding import decode_image
from monitor.image_header import read_image_header
from monitor.settings import LimitSettings
from schemas.errors import InvalidFrameError, Reason

LIMITS = LimitSettings(max_frame_bytes=200_000, max_frame_pixels=100_000)
FORMATS = {".png": "image/png", ".jpg": "image/jpeg", ".bmp": "image/bmp", ".tiff": "image/tiff", ".webp": "image/webp"}


def picture(height: int = 40, width: int = 60, channels: int = 3) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (7, 7), 2), dtype=np.uint8).reshape(height, width, channels).squeeze()


def encode(image: NDArray[np.integer | np.floating], extension: str = ".png") -> bytes:
    return bytes(cv2.imencode(extension, image)[1])


def reason_of(data: bytes, size: tuple[int, int] | None = None, channels: int = 3) -> Reason:
    with pytest.raises(InvalidFrameError) as caught:
        decode_image(data, LIMITS, size, channels)
    return caught.value.reason


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_gives_the_pixels_that_were_encoded(extension: str) -> None:
    data = encode(picture(), extension)
    image = decode_image(data, LIMITS, (40, 60), 3)
    assert image.dtype == np.uint8
    tolerance = 12 if extension == ".jpg" else 0
    assert np.abs(image.astype(int) - picture()).max() <= tolerance
    assert read_image_header(data).content_type == FORMATS[extension]


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(("stored", "asked", "shape"), [(1, 1, (40, 60)), (1, 3, (40, 60, 3)), (3, 1, (40, 60))])
def test_grey_and_colour_become_what_the_model_takes(
    extension: str, stored: int, asked: int, shape: tuple[int, ...]
) -> None:
    image = decode_image(encode(picture(channels=stored), extension), LIMITS, None, asked)
    assert image.shape == shape


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_become_8_over_the_full_range(extension: str, channels: int) -> None:
    wide = picture(channels=channels).astype(np.uint16) * 257
    np.testing.assert_array_equal(
        decode_image(encode(wide, extension), LIMITS, None, channels), picture(channels=channels)
    )


@pytest.mark.parametrize("colours", [picture(), picture().astype(np.uint16) * 257], ids=["8 bits", "16 bits"])
def test_transparency_is_dropped(colours: NDArray[np.integer]) -> None:
    image = decode_image(encode(np.dstack([colours, np.full_like(colours[:, :, 0], 3)])), LIMITS, None, 3)
    np.testing.assert_array_equal(image, picture())


def test_an_orientation_tag_does_not_turn_the_picture() -> None:
    # An EXIF segment with orientation 6: turn by 90 degrees.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = encode(picture(), ".jpg")
    tagged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert decode_image(tagged, LIMITS, (40, 60), 3).shape == (40, 60, 3)


def test_no_bytes_are_empty() -> None:
    assert reason_of(b"") is Reason.EMPTY


def test_bytes_over_the_limit_are_not_even_looked_at() -> None:
    assert reason_of(b"x" * 200_001) is Reason.TOO_LARGE


@pytest.mark.parametrize("data", [b"GIF89a" + b"\0" * 99, b"{}", b"RIFF\x10\0\0\0WAVEfmt ", b"\x89PNG\r\n\x1a\r"])
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    assert reason_of(data) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9, 0.999])
def test_an_image_that_ends_early_is_truncated(extension: str, kept: float) -> None:
    data = encode(picture(), extension)
    assert reason_of(data[: max(8, int(len(data) * kept))]) is Reason.TRUNCATED


def test_the_end_of_a_thumbnail_is_not_the_end_of_its_picture() -> None:
    jpeg, thumbnail = encode(picture(), ".jpg"), encode(picture(8, 8), ".jpg")
    whole = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    assert decode_image(whole, LIMITS, None, 3).shape == (40, 60, 3)
    assert not read_image_header(whole[:-100]).complete


def test_bytes_after_the_end_do_no_harm() -> None:
    for extension in (".png", ".jpg"):
        assert decode_image(encode(picture(), extension) + b"\0" * 7, LIMITS, None, 3).shape == (40, 60, 3)


def test_another_size_than_the_model_expects_is_refused_by_name() -> None:
    assert reason_of(encode(picture()), size=(60, 40)) is Reason.WRONG_SIZE
    with pytest.raises(InvalidFrameError, match="60 x 40 pixels, the model expects 61 x 40"):
        decode_image(encode(picture()), LIMITS, (40, 61), 3)


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    side = 30_000
    pixels = zlib.compress(bytes(side * 20), 9)  # never reached
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert len(png) < 2000
    assert reason_of(png) is Reason.TOO_MANY_PIXELS


def chunk(kind: bytes, body: bytes, announced: int | None = None) -> bytes:
    length = len(body) if announced is None else announced
    return struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_the_length_that_a_png_announces_takes_no_memory() -> None:
    # OpenCV would take the two gigabytes before it looks for them.
    png = encode(picture())
    header, rest = png[:33], png[33:]
    announcing = header + chunk(b"IDAT", b"", announced=2**31 - 1) + rest
    assert not read_image_header(announcing).complete
    assert reason_of(announcing) is Reason.TRUNCATED


def test_a_png_has_one_header() -> None:
    png = encode(picture())
    large = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    assert reason_of(png[:33] + large + png[33:]) is Reason.NOT_AN_IMAGE


def tiff(*tags: tuple[int, int, int]) -> bytes:
    """Return a TIFF of 16 x 16 pixels that has these tags (tag, type, value) too."""
    known = [(256, 4, 16), (257, 4, 16), (258, 4, 8), (259, 4, 1), (262, 4, 1), (277, 4, 1)]
    entries = sorted([*tags, *known], key=lambda entry: entry[0])
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


@pytest.mark.parametrize("tag", [(256, 4, 20_000), (257, 1, 200), (322, 16, 8000)])
def test_a_tiff_that_decoders_may_read_otherwise_is_refused(tag: tuple[int, int, int]) -> None:
    assert reason_of(tiff(tag)) is Reason.NOT_AN_IMAGE


def test_large_tiles_of_a_small_image_are_too_many_pixels() -> None:
    assert reason_of(tiff((322, 4, 8192), (323, 4, 8192))) is Reason.TOO_MANY_PIXELS


def test_tiles_that_have_one_side_are_refused_before_anything_is_decoded() -> None:
    with pytest.raises(InvalidFrameError, match="a TIFF with tiles of 65535x0 pixels"):
        decode_image(tiff((322, 4, 65_535)), LimitSettings(), None, 1)


def test_floating_point_pixels_are_refused() -> None:
    assert reason_of(encode(picture().astype(np.float32) / 255, ".tiff")) is Reason.NOT_AN_IMAGE


def test_a_jpeg_of_nothing_but_segments_is_given_up() -> None:
    assert reason_of(b"\xff\xd8" + b"\xff\xe1\0\x02" * 40_000) is Reason.NOT_AN_IMAGE


MAGICS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\0\0\0\0WEBPVP8L",
]


@given(st.sampled_from(MAGICS), st.binary(max_size=200))
def test_arbitrary_bytes_never_raise_anything_else(magic: bytes, rest: bytes) -> None:
    try:
        decode_image(magic + rest, LIMITS, None, 3)
    except InvalidFrameError:
        return


@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_image_gives_pixels_of_its_size_or_a_reason(
    extension: str,
    place: int,
    damage: bytes,
    cut: bool,  # noqa: FBT001
) -> None:
    data = bytearray(encode(picture(), extension))
    place %= len(data)
    data[place : place + len(damage)] = damage
    try:
        image = decode_image(bytes(data[:place] if cut else data), LIMITS, None, 1)
    except InvalidFrameError:
        return
    assert image.ndim == 2
    assert image.size <= LIMITS.max_frame_pixels
