"""Records for the tests of the stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from monitor.ports import (
    Addition,
    BankEdit,
    BankKey,
    BankShape,
    BankStore,
    DeadLetter,
    InspectionRecord,
    LogPosition,
    RawRecord,
)
from schemas.errors import Reason
from schemas.messages import FrameEvent, RegionMessage, Verdict

CAPTURED = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
REGION = RegionMessage(
    x=1, y=2, width=3, height=4, area=10.5, centroid_x=2.5, centroid_y=3.5, mean_residual=1.5, max_residual=2.5,
    length=4.2, breadth=2.8, aspect_ratio=1.5, orientation=81.5, solidity=0.9, path_length=4.2, mean_width=2.5,
    area_mm2=0.105, length_mm=0.42, breadth_mm=0.28, path_length_mm=0.42, mean_width_mm=0.25,
)  # fmt: skip


def position(offset: int, partition: int = 0, topic_id: str = "topic-1") -> LogPosition:
    return LogPosition("frames", topic_id, partition, offset)


def inspection(
    frame_id: str,
    offset: int,
    *,
    camera: str = "cam1",
    verdict: Verdict = Verdict.DEFECT,
    image_sha256: str | None = None,
    topic_id: str = "topic-1",
    bank_version: int = 7,
    model_id: str = "model-1",
) -> InspectionRecord:
    return InspectionRecord(
        position=position(offset, topic_id=topic_id),
        frame=FrameEvent(
            frame_id=frame_id, camera=camera, captured_at=CAPTURED, part_serial="Teil-Ä1", lot="L1", deadline_ms=500
        ),
        verdict=verdict,
        model_id=model_id,
        inspected_at=CAPTURED + timedelta(milliseconds=41.5),
        score=0.75,
        threshold=0.5,
        defect_area=0.25,
        mask_png=b"\x89PNG mask",
        regions=(REGION, REGION.model_copy(update={"x": 9})) if verdict is Verdict.DEFECT else (),
        region_count=2 if verdict is Verdict.DEFECT else 0,
        bank_version=bank_version,
        image_sha256=image_sha256,
    )


def dead_letter(
    offset: int, *, key: bytes | None = b"cam1", frame_id: bytes | None = None, detail: str = "x"
) -> DeadLetter:
    name = b"dead-%d" % offset if frame_id is None else frame_id
    record = RawRecord(position(offset), key, (("ce_id", name),), b"bytes")
    return DeadLetter(record, Reason.NOT_AN_IMAGE, detail)


def teach(
    store: BankStore,
    key: BankKey,
    shape: BankShape,
    frame_id: str,
    features: NDArray[np.float16],
    *,
    evict: tuple[int, ...] = (),
    budget: int = 2**40,
) -> BankEdit:
    """Add an entry to a bank of two pinned normals as it is now, in the lowest slot that is free."""
    changes = store.changes(key, None)
    taken = {change.slot for change in changes.slots} - set(evict)
    slot = next(slot for slot in range(2, 10_000) if slot not in taken)
    return store.add(key, shape, Addition(frame_id, features, changes.version, slot, evict, budget))
