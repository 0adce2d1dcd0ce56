"""A model that looks on: it inspects what the active model has inspected, has no say, and may fail without harm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import structlog
import torch

from monitor.inspecting import verdict_on
from monitor.intake import DecodedFrame, FailedFrame
from monitor.metrics import STAGE_SECONDS
from monitor.models import Models
from monitor.ports import Clock, InspectionRecord
from monitor.post import Post
from schemas.messages import Verdict

log = structlog.get_logger()


class ShadowInspector:
    """Lets shadows inspect frames, and keeps what goes wrong with them to itself. Used by one thread.

    Args:
        shadows: names each camera's.
        clock: for the time of inspection.
        most_behind: so many newer frames waiting behind a frame are pressure: then no shadow sees it.
    """

    def __init__(self, shadows: Models[Post | None], clock: Clock, most_behind: int) -> None:
        self._shadows = shadows
        self._clock = clock
        self._most_behind = most_behind

    def post_for(self, camera: str, active: Post, newer: int) -> Post | None:
        """Return the model that is to look at a frame, too: none under pressure, and not the same one twice."""
        shadow = self._shadows.active(camera)
        if shadow is None or newer >= self._most_behind or shadow.model_id == active.model_id:
            return None
        return shadow

    def inspect(
        self, frames: Sequence[DecodedFrame | FailedFrame], records: Sequence[InspectionRecord]
    ) -> tuple[InspectionRecord, ...]:
        """Return what shadows say of the frames that they can see and that got a verdict. Never raises.

        Nothing is said of a frame whose inspection fails. Frames of one camera and one model are inspected together,
        against that model's bank of the camera.

        Args:
            frames: a batch.
            records: what the active models said of each.
        """
        seen = [
            frame.shadow
            for frame, record in zip(frames, records, strict=True)
            if isinstance(frame, DecodedFrame) and frame.shadow and record.verdict is not Verdict.UNINSPECTED
        ]
        if not seen:
            return ()
        with STAGE_SECONDS.labels(stage="shadow").time():
            return self._look_at(seen)

    def _look_at(self, frames: Sequence[DecodedFrame]) -> tuple[InspectionRecord, ...]:
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
