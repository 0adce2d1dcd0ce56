"""What an entry of a bank comes from."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.ports import Policy


@dataclass(frozen=True, slots=True)
class Lesson:
    """What an entry comes from: the frame, its image, and whose word it was."""

    frame_id: str
    image_sha256: str
    by: str
    why: str | None
    policy: Policy = Policy.PERSON
