"""Images kept for review and learning, by their content, in a folder or in object storage."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from pathlib import Path

import fsspec
import structlog
from fsspec.implementations.local import LocalFileSystem

from monitor.errors import ImageStoreFullError, StoreUnavailableError
from monitor.settings import redact
from schemas.errors import ConfigurationError

KEY = "images.url"
FULL = (errno.ENOSPC, errno.EDQUOT)

_SHA256 = re.compile(r"[0-9a-f]{64}")

log = structlog.get_logger()


class FsspecImageStore:
    """The :class:`~monitor.ports.ImageStore` over fsspec: ``ab/cd/<sha256>`` below a root.

    Args:
        url: a folder, or any fsspec URL (``file://``, ``s3://``).
        reserve_bytes: what is left free of a folder's disk.

    Raises:
        ConfigurationError: ``images.url`` names no store that can be opened.
    """

    def __init__(self, url: str, reserve_bytes: int = 0) -> None:
        self._reserve_bytes = reserve_bytes
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
            self._files.makedirs(self._root, exist_ok=True)
        except (ImportError, ValueError, OSError) as error:
            remedy = "Name a writable folder, or install the fsspec package of this kind of store (s3fs for s3://)."
            raise ConfigurationError(KEY, redact(url), str(error), remedy) from error

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256; bytes that are there already are not written again.

        Raises:
            ImageStoreFullError: the disk is full, or what is left of it is reserved.
            StoreUnavailableError: nothing was stored; the same call may be made again.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        try:
            # The size tells of a write that a power failure cut short: it is done again.
            if not self._files.exists(path) or self._files.size(path) != len(data):
                self._write(path, data)
        except OSError as error:
            kind = ImageStoreFullError if error.errno in FULL else StoreUnavailableError
            raise kind(f"image not stored: {error}") from error  # noqa: EM102, TRY003 - one place
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return the bytes.

        Raises:
            KeyError: there is nothing at this address, or what is there is damaged.
            StoreUnavailableError: the store is away.
        """
        if not _SHA256.fullmatch(sha256):
            raise KeyError(sha256)
        try:
            data = bytes(self._files.cat_file(self._path(sha256)))
        except FileNotFoundError:
            raise KeyError(sha256) from None
        except OSError as error:
            raise StoreUnavailableError(f"image not read: {error}") from error  # noqa: EM102, TRY003 - one place
        if hashlib.sha256(data).hexdigest() != sha256:
            log.error("stored image is damaged; treated as missing", sha256=sha256)
            raise KeyError(sha256)
        return data

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _write(self, path: str, data: bytes) -> None:
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(path, data)  # object stores show an object when it is complete
            return
        if self._reserve_bytes:
            self._require_room(len(data))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(f"{path}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)  # noqa: PTH105 - the path is fsspec's, a string
        finally:
            temporary.unlink(missing_ok=True)

    def _require_room(self, size: int) -> None:
        free = shutil.disk_usage(self._root).free - size
        if free < self._reserve_bytes:
            msg = (
                f"image not stored: {max(0, free) // 2**20} MB would be left on the disk of {self._root}, "
                f"images.reserve_mb is {self._reserve_bytes // 2**20}. Make room, or move images.url"
            )
            raise ImageStoreFullError(msg)
