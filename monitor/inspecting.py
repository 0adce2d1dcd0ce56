"""From decoded frames to what the database is told: deadlines, models, banks, verdicts; failures stay small."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import cv2
import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from monitor.core.inspector import Inspection
from monitor.core.memory_bank import MemoryBank
from monitor.core.regions import Regions, measure_regions
from monitor.core.view import Placement
from monitor.intake import INSPECTION_FAILED, DecodedFrame, FailedFrame
from monitor.metrics import BANK_VERSION, MODEL_IN_USE
from monitor.models import Models
from monitor.overload import Overload, Pace
from monitor.ports import Clock, DriftReport, InspectionRecord, LogPosition
from monitor.post import Post
from monitor.settings import CameraSettings
from schemas.messages import Verdict

log = structlog.get_logger()


class BatchInspector:
    """Gives every frame of a batch a record: a verdict, or the reason why there is none. Used by one thread.

    Args:
        models: names the model of frames that none inspects; the others bring theirs along.
        clock: for deadlines and the time of inspection.
        cameras: how large a pixel is, for the measures, and what to do when too much comes.
    """

    def __init__(self, models: Models[Post], clock: Clock, cameras: CameraSettings) -> None:
        self._models = models
        self._in_use: dict[str, str] = {}
        self._reports: list[DriftReport] = []
        self._clock = clock
        self._cameras = cameras
        self._overload = Overload(cameras, clock)
        self._pace = Pace()

    def inspect(self, frames: Sequence[DecodedFrame | FailedFrame]) -> list[InspectionRecord]:
        """Return one record per frame, in order.

        Frames of one camera and one model are inspected together, against the camera's bank; whose first frame came
        first, comes first.

        Raises:
            BankMismatchError: the online bank does not fit the model.
        """
        started = self._clock.monotonic()
        records: dict[LogPosition, InspectionRecord] = {}
        groups: dict[tuple[Post, str], list[DecodedFrame]] = defaultdict(list)
        for frame in frames:
            if isinstance(frame, FailedFrame):
                records[frame.position] = self._uninspected(frame, frame.reason)
            elif reason := self._overload.why_not(frame.event, frame.newer, self._pace):
                records[frame.position] = self._uninspected(frame, reason)
            else:
                groups[frame.post, frame.event.camera].append(frame)
        for (post, camera), group in groups.items():
            bank = post.banks.current(camera)
            self._note(post, camera, bank)
            inspections = self._attempt(group, post, bank)
            for frame, inspection in zip(group, inspections, strict=True):
                records[frame.position] = self._conclude(frame, inspection, bank)
            report = post.drift.follow(camera, [each for each in inspections if each is not None], bank.version)
            if report is not None:
                self._reports.append(report)
        if groups:
            self._pace.observe(self._clock.monotonic() - started)
        elif any(isinstance(frame, DecodedFrame) for frame in frames):
            self._pace.forget()
        return [records[frame.position] for frame in frames]

    def take_drift(self) -> tuple[DriftReport, ...]:
        """Return the drift reports that are due since the last call."""
        reports, self._reports = tuple(self._reports), []
        return reports

    def _uninspected(self, frame: DecodedFrame | FailedFrame, reason: str) -> InspectionRecord:
        """Return the record of a frame without a verdict: it fails safe, for it is never 'normal'."""
        return InspectionRecord(
            position=frame.position,
            frame=frame.event,
            verdict=Verdict.UNINSPECTED,
            model_id=(
                frame.post if isinstance(frame, DecodedFrame) else self._models.active(frame.event.camera)
            ).model_id,
            inspected_at=self._clock.now(),
            reason=reason,
        )

    def _note(self, post: Post, camera: str, bank: MemoryBank) -> None:
        BANK_VERSION.labels(camera=camera).set(bank.version)
        before = self._in_use.get(camera)
        if before == post.model_id:
            return
        if before is not None:
            MODEL_IN_USE.remove(camera, before)
        MODEL_IN_USE.labels(camera=camera, model=post.model_id).set(1)
        self._in_use[camera] = post.model_id

    def _attempt(self, frames: Sequence[DecodedFrame], post: Post, bank: MemoryBank) -> list[Inspection | None]:
        """Inspect frames of one camera; None for a frame whose inspection fails even by itself."""
        if len(frames) > post.most_at_once:
            return self._attempt_parts(frames, post.most_at_once, post, bank)
        try:
            batch = np.stack([frame.pixels for frame in frames])  # (B, C, H, W)
            return list(post.inspector.inspect(batch, bank))
        except torch.cuda.OutOfMemoryError:
            part = _halve(post, len(frames))
        except Exception:
            part = 1
            if len(frames) == 1:
                event = frames[0].event
                log.exception("Inspection failed; storing as uninspected", frame=event.frame_id, camera=event.camera)
            else:
                log.warning("Inspecting a batch failed; trying its frames one by one", frames=len(frames))
        # Not within the except clauses: there, the failed attempt's tensors would still be held.
        if len(frames) == 1:
            return [None]
        return self._attempt_parts(frames, part, post, bank)

    def _attempt_parts(
        self, frames: Sequence[DecodedFrame], size: int, post: Post, bank: MemoryBank
    ) -> list[Inspection | None]:
        parts = (frames[start : start + size] for start in range(0, len(frames), size))
        return [inspection for part in parts for inspection in self._attempt(part, post, bank)]

    def _conclude(self, frame: DecodedFrame, inspection: Inspection | None, bank: MemoryBank) -> InspectionRecord:
        # A score that is not a number compares as 'not above the threshold': it must not pass for normal.
        if inspection is None or not math.isfinite(inspection.score):
            return self._uninspected(frame, INSPECTION_FAILED)
        pitch = self._cameras.pitch_of(frame.event.camera)
        return verdict_on(frame, inspection, bank.version, self._clock.now(), pitch)


def _halve(post: Post, frames: int) -> int:
    post.most_at_once = max(1, frames // 2)
    if frames == 1:
        log.error("The device's memory does not hold a single frame; storing it as uninspected")
    else:
        log.warning("The device's memory does not hold %d frames; inspecting %d at a time", frames, post.most_at_once)
    torch.cuda.empty_cache()
    return post.most_at_once


def verdict_on(
    frame: DecodedFrame, inspection: Inspection, bank_version: int, now: datetime, pitch_um: float | None = None
) -> InspectionRecord:
    """Return the record of an inspected frame, whose score is finite; for the measures, how large a pixel is."""
    manifest = frame.post.inspector.manifest
    mask, found = where_it_lies(inspection, frame.placement, pitch_um)
    return InspectionRecord(
        position=frame.position,
        frame=frame.event,
        verdict=Verdict.DEFECT if inspection.flagged else Verdict.NORMAL,
        model_id=manifest.model_id,
        inspected_at=now,
        score=inspection.score,
        threshold=manifest.calibration.verdict.threshold,
        defect_area=float(inspection.mask.mean()) / manifest.view.inspected_share,
        mask_png=encode_mask(mask),
        regions=found.measured,
        region_count=found.count,
        bank_version=bank_version,
    )


def where_it_lies(
    inspection: Inspection, placement: Placement, pitch_um: float | None = None
) -> tuple[NDArray[np.bool_], Regions]:
    """Return the mask of the camera's whole frame, at the network's scale, and its regions in camera pixels."""
    mask, anomaly = inspection.mask, inspection.anomaly
    if placement.moved is not None:
        mask, anomaly = placement.restore(mask.astype(np.float32)) > 0, placement.restore(anomaly)
    found = measure_regions(mask, anomaly, placement.size, pitch_um)
    if placement.roi is None:
        return mask, found
    x, y = placement.origin
    aside = tuple(
        each.model_copy(
            update={
                "x": each.x + x,
                "y": each.y + y,
                "centroid_x": each.centroid_x + x,
                "centroid_y": each.centroid_y + y,
            }
        )
        for each in found.measured
    )
    return placement.whole(mask), Regions(aside, found.count)


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W) as a PNG of 0 and 255."""
    _, png = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    return png.tobytes()
