"""The in-memory twin of the image store."""

from __future__ import annotations

import hashlib


class MemoryImageStore:
    """The ``ImageStore`` port in a dictionary."""

    def __init__(self) -> None:
        self._images: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._images[sha256] = data
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return the bytes.

        Raises:
            KeyError: there is nothing at this address.
        """
        return self._images[sha256]
