"""From bytes to pixels; whatever cannot become pixels gets the precise reason for its dead letter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.core.preprocessing import decode_pixels
from monitor.image_header import read_image_header
from monitor.settings import LimitSettings
from schemas.errors import InvalidFrameError, Reason


def decode_image(
    data: bytes, limits: LimitSettings, source_size: tuple[int, int] | None, channels: int
) -> NDArray[np.uint8]:
    """Decode one PNG, JPEG, BMP, TIFF or WebP image.

    The pixels are those the camera sent: an orientation tag does not turn them, transparency is dropped, and 16 bits
    become 8 over the full range (65535 becomes 255).

    Args:
        data: the encoded image.
        limits: the largest image in bytes and in pixels.
        source_size: the (height, width) that the image must have; None: any.
        channels: 1 for grey, 3 for blue, green, red.

    Returns:
        The image, (H, W) or (H, W, 3), 0 to 255.

    Raises:
        InvalidFrameError: the bytes are not such an image, or it is beyond the limits or of another size.
    """
    if not data:
        raise InvalidFrameError(Reason.EMPTY, "there are no bytes, so no image")
    require_size(data, limits)
    header = read_image_header(data)
    # Before decoding: a few kilobytes can hold gigabytes of one colour.
    if header.width * header.height > limits.max_frame_pixels:
        detail = f"{header.width} x {header.height} pixels, limits.max_frame_pixels is {limits.max_frame_pixels}"
        raise InvalidFrameError(Reason.TOO_MANY_PIXELS, detail)
    if header.tile_pixels > limits.max_frame_pixels:
        detail = f"tiles of {header.tile_pixels} pixels, limits.max_frame_pixels is {limits.max_frame_pixels}"
        raise InvalidFrameError(Reason.TOO_MANY_PIXELS, detail)
    if source_size is not None and (header.height, header.width) != source_size:
        detail = f"{header.width} x {header.height} pixels, the model expects {source_size[1]} x {source_size[0]}"
        raise InvalidFrameError(Reason.WRONG_SIZE, detail)
    # Some decoders make up the rest of an image that ends early, and that would be inspected.
    try:
        image = decode_pixels(data, channels) if header.complete else None
    except ValueError as error:
        raise InvalidFrameError(Reason.NOT_AN_IMAGE, str(error)) from error
    if image is None or image.shape[:2] != (header.height, header.width):
        raise InvalidFrameError(Reason.TRUNCATED, f"{header.content_type} that ends early or is damaged")
    return image


def require_size(data: bytes, limits: LimitSettings) -> None:
    """Require that an encoded image is within the limits.

    Raises:
        InvalidFrameError: it is not.
    """
    if len(data) > limits.max_frame_bytes:
        detail = f"{len(data)} bytes, limits.max_frame_bytes is {limits.max_frame_bytes}"
        raise InvalidFrameError(Reason.TOO_LARGE, detail)
