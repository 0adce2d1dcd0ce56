"""Inspections as rows and as events."""

from __future__ import annotations

from typing import Any

from monitor.ports import InspectionRecord, OutboxMessage
from schemas.messages import InspectionEvent
from schemas.tables import OutboxRow

Values = dict[str, Any]


def inspection_values(record: InspectionRecord) -> Values:
    """Return an inspection's columns."""
    frame, position = record.frame, record.position
    return {
        "frame_id": frame.frame_id,
        "camera": frame.camera,
        "topic": position.topic,
        "topic_id": position.topic_id,
        "partition": position.partition,
        "offset": position.offset,
        "part_serial": frame.part_serial,
        "lot": frame.lot,
        "captured_at": frame.captured_at,
        "inspected_at": record.inspected_at,
        "latency_ms": (record.inspected_at - frame.captured_at).total_seconds() * 1000,
        "verdict": record.verdict.value,
        "reason": record.reason,
        "score": record.score,
        "threshold": record.threshold,
        "defect_area": record.defect_area,
        "mask_png": record.mask_png,
        "model_id": record.model_id,
        "bank_version": record.bank_version,
        "image_sha256": record.image_sha256,
        "content_type": frame.content_type,
        "region_count": record.region_count,
    }


def shadow_values(record: InspectionRecord) -> Values:
    """Return the columns of what a shadow found."""
    return {
        "frame_id": record.frame.frame_id,
        "camera": record.frame.camera,
        "model_id": record.model_id,
        "inspected_at": record.inspected_at,
        "verdict": record.verdict.value,
        "score": record.score,
        "threshold": record.threshold,
        "defect_area": record.defect_area,
        "mask_png": record.mask_png,
        "bank_version": record.bank_version,
    }


def inspection_event(record: InspectionRecord) -> InspectionEvent:
    """Return the event that tells of an inspection."""
    frame = record.frame
    return InspectionEvent(
        frame_id=frame.frame_id,
        camera=frame.camera,
        part_serial=frame.part_serial,
        lot=frame.lot,
        verdict=record.verdict,
        reason=record.reason,
        score=record.score,
        threshold=record.threshold,
        defect_area=record.defect_area,
        regions=record.regions,
        region_count=record.region_count,
        model_id=record.model_id,
        bank_version=record.bank_version,
        captured_at=frame.captured_at,
        inspected_at=record.inspected_at,
    )


def outbox_message(row: OutboxRow) -> OutboxMessage:
    """Return a row as what the relay publishes."""
    headers = tuple((name, value) for name, value in row.headers)
    return OutboxMessage(id=row.id, topic=row.topic, key=row.key, headers=headers, payload=row.payload)
