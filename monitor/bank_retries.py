"""When a bank may be asked for again while the store is away from it, or refuses it."""

from __future__ import annotations

from typing import Final

RETRY_AFTER_S: Final = 1.0
# A store that hangs costs a time-out on the inspecting thread; waiting ten times as long bounds that to a tenth.
RETRY_PER_SECOND_LOST: Final = 10.0


class BankRetries:
    """Knows which cameras' banks cannot be followed. Of a Redis Cluster that may be some of them, and not the others.

    Times are in seconds, of a clock that never goes back.
    """

    def __init__(self) -> None:
        self._retry_at: dict[str, float] = {}
        self._others_at = 0.0

    def due(self, camera: str, now: float) -> bool:
        """Return whether to ask for a camera's bank."""
        return now >= self._retry_at.get(camera, self._others_at)

    def failed(self, camera: str, now: float, lost: float) -> None:
        """Note that it could not be had, which took ``lost`` seconds.

        The cameras share the time that may be lost. One that could be followed so far waits once, for it may be the
        whole store that is away.
        """
        pause = max(RETRY_AFTER_S, RETRY_PER_SECOND_LOST * lost)
        if camera not in self._retry_at:
            self._others_at = now + pause
        self._retry_at[camera] = 0.0
        self._retry_at[camera] = now + pause * len(self._retry_at)

    def worked(self, camera: str) -> bool:
        """Note that it could be had; return whether all can."""
        if self._retry_at.pop(camera, None) is not None:
            self._retry_at = dict.fromkeys(self._retry_at, 0.0)
            self._others_at = 0.0
        return not self._retry_at
