"""Errors of a running monitor: outages, which are waited out rather than reported to the operator as their fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.errors import PaedidError

if TYPE_CHECKING:
    from monitor.ports import LogPosition


class StoreUnavailableError(PaedidError):
    """A server went away while running. Nothing was changed; the same call may be made again later."""


class StoreRefusedError(StoreUnavailableError):
    """A server answers and refuses: a right is missing, a password is wrong. Nothing was changed.

    No outage: a person must mend it, which can be done while the program runs. So it is told at once in its own words,
    and whoever can go on or wait does: the same call works once it is mended.
    """


class ImageStoreFullError(StoreUnavailableError):
    """There is no room for an image. Who can do without it goes on; who cannot waits as for a server that is away."""


class RowsRefusedError(PaedidError):
    """The database takes a batch but for these frames. Nothing was stored: set them aside and store the others.

    Args:
        refused: what it said, by the frames' places in the log.
    """

    def __init__(self, refused: Mapping[LogPosition, str]) -> None:
        super().__init__(f"the database refuses {len(refused)} frames: {next(iter(refused.values()), '')}")
        self.refused = refused


class BankMissingError(PaedidError):
    """The store answers but has no such bank: it was emptied, or this is the first start."""


class BankMovedError(PaedidError):
    """Another writer edited the bank first. Nothing was changed; look at the bank again, and decide again."""


class BankFullError(PaedidError):
    """The addition would exceed the bank's byte budget. Nothing was changed."""
