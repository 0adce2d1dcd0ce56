"""A model that looks on: it inspects what the active model has inspected, has no say, and may fail without harm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import structlog
import torch

from monitor.inspecting import verdict_on
from monitor.intake import DecodedFrame
from monitor.ports import Clock, InspectionRecord
from monitor.post import Post

log = structlog.get_logger()


class ShadowInspector:
    """Lets shadows inspect frames, and keeps what goes wrong with them to itself. Used by one thread.

    Args:
        clock: for the time of inspection.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def inspect(self, frames: Sequence[DecodedFrame]) -> tuple[InspectionRecord, ...]:
        """Return what the frames' models say of them, and nothing of a frame whose inspection fails. Never raises.

        Frames of one camera and one model are inspected together, against that model's bank of the camera.
        """
        groups: dict[tuple[Post, str], list[DecodedFrame]] = defaultdict(list)
        for frame in frames:
            groups[frame.post, frame.event.camera].append(frame)
        records: list[InspectionRecord] = []
        problem = "a score that is not a number"
        for (post, camera), group in groups.items():
            try:
                records += self._inspect(group, post, camera)
            except torch.cuda.OutOfMemoryError as error:
                problem = repr(error)
                post.most_at_once = max(1, min(post.most_at_once, len(group)) // 2)
            except Exception as error:  # noqa: BLE001 - whatever it is, the active model's verdicts are there
                problem = repr(error)
        if unseen := len(frames) - len(records):
            log.warning("The shadow failed on %d frames", unseen, of=len(frames), problem=problem)
        return tuple(records)

    def _inspect(self, frames: Sequence[DecodedFrame], post: Post, camera: str) -> Iterator[InspectionRecord]:
        bank = post.banks.current(camera)
        for start in range(0, len(frames), post.most_at_once):
            part = frames[start : start + post.most_at_once]
            inspections = post.inspector.inspect(np.stack([frame.pixels for frame in part]), bank)
            for frame, inspection in zip(part, inspections, strict=True):
                if math.isfinite(inspection.score):
                    yield verdict_on(frame, inspection, bank.version, self._clock.now())
