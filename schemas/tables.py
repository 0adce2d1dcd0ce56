"""The SQL tables: the truth about every frame, review and bank entry. Migrations live in ``deploy/migrations``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from schemas.messages import utc_now

# SQLite only auto-increments INTEGER primary keys, PostgreSQL should use 64 bits.
BigId = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every database (SQLite forgets the zone)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ANN401, ARG002 - SQLAlchemy's signature
        """Refuse naive times: what they mean depends on the machine."""
        if value is not None and value.tzinfo is None:
            msg = f"naive datetime {value!r}: give it a time zone"
            raise ValueError(msg)
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ANN401, ARG002 - SQLAlchemy's signature
        """Return an aware UTC time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class InspectionRow(Base):
    """One inspected (or deliberately uninspected) frame. Unique by frame id and by its place in the log."""

    __tablename__ = "inspections"
    # The topic id tells a re-created topic, whose offsets start again at zero, from the one before it.
    __table_args__ = (
        UniqueConstraint("topic_id", "partition", "offset"),
        Index(None, "camera", "captured_at"),
        Index(None, "verdict", "id"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    frame_id: Mapped[str] = mapped_column(String(128), unique=True)
    camera: Mapped[str] = mapped_column(String(128))
    topic: Mapped[str] = mapped_column(String(249))
    topic_id: Mapped[str] = mapped_column(String(64))
    partition: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int] = mapped_column(BigInteger)
    part_serial: Mapped[str | None] = mapped_column(String(256), index=True)
    lot: Mapped[str | None] = mapped_column(String(256))
    captured_at: Mapped[datetime] = mapped_column(UtcDateTime)
    inspected_at: Mapped[datetime] = mapped_column(UtcDateTime)
    latency_ms: Mapped[float] = mapped_column(Float, comment="from capture to inspected")
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(64), comment="why uninspected")
    score: Mapped[float | None] = mapped_column(Float)
    threshold: Mapped[float | None] = mapped_column(Float, comment="verdict threshold the score was held against")
    defect_area: Mapped[float | None] = mapped_column(Float, comment="share of the inspected pixels in the mask, 0..1")
    mask_png: Mapped[bytes | None] = mapped_column(LargeBinary, comment="0/255 PNG at the network's resolution")
    model_id: Mapped[str] = mapped_column(String(64))
    bank_version: Mapped[int | None] = mapped_column(BigInteger)
    image_sha256: Mapped[str | None] = mapped_column(String(64), comment="address in the image store, if kept")
    content_type: Mapped[str] = mapped_column(String(64))
    region_count: Mapped[int | None] = mapped_column(Integer, comment="regions in the mask; the largest have a row")
    regions: Mapped[list[RegionRow]] = relationship(
        back_populates="inspection", cascade="all, delete-orphan", order_by="RegionRow.id"
    )


class RegionRow(Base):
    """One connected defective region of an inspection, in pixels of the frame as the camera sent it."""

    __tablename__ = "regions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    inspection_id: Mapped[int] = mapped_column(ForeignKey("inspections.id", ondelete="CASCADE"), index=True)
    x: Mapped[int] = mapped_column(Integer)
    y: Mapped[int] = mapped_column(Integer)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    area: Mapped[float] = mapped_column(Float)
    centroid_x: Mapped[float] = mapped_column(Float)
    centroid_y: Mapped[float] = mapped_column(Float)
    mean_residual: Mapped[float] = mapped_column(Float, comment="in units of the normals' own spread")
    max_residual: Mapped[float] = mapped_column(Float, comment="in units of the normals' own spread")
    # Null in rows from before there were measures; what ends in _mm or _mm2 also without a pixel pitch.
    length: Mapped[float | None] = mapped_column(Float, comment="longer side of the smallest turned rectangle")
    breadth: Mapped[float | None] = mapped_column(Float, comment="shorter side of the smallest turned rectangle")
    aspect_ratio: Mapped[float | None] = mapped_column(Float, comment="length / breadth, >= 1")
    orientation: Mapped[float | None] = mapped_column(Float, comment="of length, 0..180 degrees from x towards y, down")
    solidity: Mapped[float | None] = mapped_column(Float, comment="share of the convex hull, 0..1")
    path_length: Mapped[float | None] = mapped_column(Float, comment="along the region, all branches together")
    mean_width: Mapped[float | None] = mapped_column(Float, comment="area / path_length")
    area_mm2: Mapped[float | None] = mapped_column(Float)
    length_mm: Mapped[float | None] = mapped_column(Float)
    breadth_mm: Mapped[float | None] = mapped_column(Float)
    path_length_mm: Mapped[float | None] = mapped_column(Float)
    mean_width_mm: Mapped[float | None] = mapped_column(Float)
    inspection: Mapped[InspectionRow] = relationship(back_populates="regions")


class ShadowInspectionRow(Base):
    """What a model without a say found on an inspected frame, once for each model. It is never the frame's verdict."""

    __tablename__ = "shadow_inspections"
    __table_args__ = (UniqueConstraint("frame_id", "model_id"), Index(None, "camera", "inspected_at"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    frame_id: Mapped[str] = mapped_column(ForeignKey("inspections.frame_id", ondelete="CASCADE"))
    camera: Mapped[str] = mapped_column(String(128))
    model_id: Mapped[str] = mapped_column(String(64))
    inspected_at: Mapped[datetime] = mapped_column(UtcDateTime)
    verdict: Mapped[str] = mapped_column(String(16), comment="normal or defect")
    score: Mapped[float] = mapped_column(Float)
    threshold: Mapped[float] = mapped_column(Float, comment="verdict threshold the score was held against")
    defect_area: Mapped[float] = mapped_column(Float, comment="share of the inspected pixels in the mask, 0..1")
    mask_png: Mapped[bytes] = mapped_column(LargeBinary, comment="0/255 PNG at this network's resolution")
    bank_version: Mapped[int] = mapped_column(BigInteger)


class ReviewRow(Base):
    """A word on a frame, a person's or the rule's, and what the learner made of it. One at a time for each frame."""

    __tablename__ = "reviews"
    __table_args__ = (
        Index(None, "outcome", "id"),
        # A word that was taken back stays, and makes place for another.
        Index(
            "uq_reviews_frame_id_in_force",
            "frame_id",
            unique=True,
            sqlite_where=text("withdrawn_at IS NULL"),
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    frame_id: Mapped[str] = mapped_column(ForeignKey("inspections.frame_id"))
    verdict: Mapped[str] = mapped_column(String(16), comment="normal or defect, as the person says")
    policy: Mapped[str] = mapped_column(String(16), default="person", comment="person or rule: whose word it is")
    reviewer: Mapped[str] = mapped_column(String(128))
    note: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    # 'pending' until the learner has dealt with it; then added, known, explained, recorded or refused.
    outcome: Mapped[str] = mapped_column(String(16), default="pending")
    outcome_detail: Mapped[str | None] = mapped_column(Text)
    applied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    bank_version: Mapped[int | None] = mapped_column(BigInteger)
    hidden_frame_id: Mapped[str | None] = mapped_column(String(128), comment="the defect that it would have hidden")
    hidden_picture: Mapped[str | None] = mapped_column(String(64), comment="image store: both frames' patches, PNG")
    withdrawn_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    withdrawn_by: Mapped[str | None] = mapped_column(String(128))
    withdrawn_why: Mapped[str | None] = mapped_column(Text)


class BankEntryRow(Base):
    """One normal taught to a bank: who, when, why, which frame, version added, version removed."""

    __tablename__ = "bank_entries"
    __table_args__ = (
        UniqueConstraint("camera", "model_id", "frame_id", "version_added"),
        Index(None, "camera", "model_id", "version_removed"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    camera: Mapped[str] = mapped_column(String(128))
    model_id: Mapped[str] = mapped_column(String(64))
    frame_id: Mapped[str] = mapped_column(String(128))
    slot: Mapped[int] = mapped_column(Integer)
    image_sha256: Mapped[str] = mapped_column(String(64))
    features_sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, comment="what its entry takes")
    locations: Mapped[bytes | None] = mapped_column(LargeBinary, comment="which it keeps, a bit each; null: all")
    policy: Mapped[str] = mapped_column(String(16), default="person", comment="person or rule: whose word it was")
    added_by: Mapped[str] = mapped_column(String(128))
    why: Mapped[str | None] = mapped_column(Text)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    version_added: Mapped[int] = mapped_column(BigInteger)
    version_removed: Mapped[int | None] = mapped_column(BigInteger)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    removed_by: Mapped[str | None] = mapped_column(String(128))
    removed_why: Mapped[str | None] = mapped_column(Text)


class BankOrderRow(Base):
    """What a person told the learner to do with a bank: take a frame out, go back to a version, and the like."""

    __tablename__ = "bank_orders"
    __table_args__ = (Index(None, "outcome", "id"), Index(None, "kind", "frame_id"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), comment="quarantine, retract, rollback, restore or rebuild")
    camera: Mapped[str] = mapped_column(String(128))
    model_id: Mapped[str] = mapped_column(String(64))
    frame_id: Mapped[str | None] = mapped_column(String(128), comment="of quarantine and retract")
    version: Mapped[int | None] = mapped_column(BigInteger, comment="of rollback: the version to go back to")
    snapshot_sha256: Mapped[str | None] = mapped_column(String(64), comment="of restore: its address, image store")
    ordered_by: Mapped[str] = mapped_column(String(128))
    why: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    # 'pending' until the learner has dealt with it; then done or refused.
    outcome: Mapped[str] = mapped_column(String(16), default="pending")
    outcome_detail: Mapped[str | None] = mapped_column(Text)
    applied_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    bank_version: Mapped[int | None] = mapped_column(BigInteger)


class LogGapRow(Base):
    """Messages that Kafka's retention deleted before they were read: they were not inspected and never can be."""

    __tablename__ = "log_gaps"
    __table_args__ = (UniqueConstraint("topic_id", "partition", "first_offset"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    topic: Mapped[str] = mapped_column(String(249))
    topic_id: Mapped[str] = mapped_column(String(64))
    partition: Mapped[int] = mapped_column(Integer)
    first_offset: Mapped[int] = mapped_column(BigInteger, comment="the first that is gone")
    messages: Mapped[int] = mapped_column(BigInteger, comment="offsets that are gone; markers of transactions too")
    found_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LearningPauseRow(Base):
    """A time in which one confirmation policy taught nothing. In force while ``resumed_at`` is null."""

    __tablename__ = "learning_pauses"
    __table_args__ = (Index(None, "resumed_at"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    policy: Mapped[str] = mapped_column(String(16), comment="person or rule")
    paused_by: Mapped[str] = mapped_column(String(128))
    why: Mapped[str | None] = mapped_column(Text)
    paused_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    resumed_by: Mapped[str | None] = mapped_column(String(128))
    resumed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ModelAssignmentRow(Base):
    """A person's word on which model a camera gets. The newest of a camera and role is in force; rows never change."""

    __tablename__ = "model_assignments"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    camera: Mapped[str | None] = mapped_column(String(128), comment="null: every camera that has none of its own")
    role: Mapped[str] = mapped_column(String(16), comment="active or shadow")
    bundle: Mapped[str | None] = mapped_column(Text, comment="absolute path; null: nothing is assigned any more")
    model_id: Mapped[str | None] = mapped_column(String(64), comment="of the bundle")
    assigned_by: Mapped[str] = mapped_column(String(128))
    why: Mapped[str | None] = mapped_column(Text)
    assigned_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)


class DriftStateRow(Base):
    """Where a camera's drift charts stand (``monitor.core.drift``), as the worker told last."""

    __tablename__ = "drift_states"

    camera: Mapped[str] = mapped_column(String(128), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    bank_version: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    frames: Mapped[int] = mapped_column(BigInteger)
    ratio: Mapped[float] = mapped_column(Float, comment="of the score's average: 0 as normals are, 1 at the limit")
    drifting_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_drift_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    locations: Mapped[list[list[float]]] = mapped_column(JSON, comment="beyond their limit: row, column, ratio")
    score_ewma: Mapped[float] = mapped_column(Float)
    distance_ewma: Mapped[bytes] = mapped_column(LargeBinary, comment="of each location, float32")


class OutboxRow(Base):
    """An event to publish, written in the same transaction as what it tells of."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "published_at", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    dedupe_id: Mapped[str] = mapped_column(String(200), unique=True)
    topic: Mapped[str] = mapped_column(String(249))
    key: Mapped[str] = mapped_column(String(128))
    headers: Mapped[list[list[str]]] = mapped_column(JSON)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class DeadLetterRow(Base):
    """The account of one message that can never be inspected; its bytes are in topic ``frames.dead``.

    It stays when the message was replayed (its frame then has its end at another place of the log) and when it was
    purged (nobody wants to look at it again).
    """

    __tablename__ = "dead_letters"
    __table_args__ = (UniqueConstraint("topic_id", "partition", "offset"), Index(None, "frame_id"))

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    topic: Mapped[str] = mapped_column(String(249))
    topic_id: Mapped[str] = mapped_column(String(64))
    partition: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int] = mapped_column(BigInteger)
    camera: Mapped[str | None] = mapped_column(String(128), comment="from the key, as far as readable")
    frame_id: Mapped[str | None] = mapped_column(String(128), comment="from the headers, as far as readable")
    reason: Mapped[str] = mapped_column(String(32))
    detail: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str | None] = mapped_column(String(64), comment="of its bytes; null: from before it was recorded")
    received_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now)
    # Null in rows from before places were recorded, and where the broker did not say.
    dead_topic: Mapped[str | None] = mapped_column(String(249), comment="where its bytes lie")
    dead_topic_id: Mapped[str | None] = mapped_column(String(64))
    dead_partition: Mapped[int | None] = mapped_column(Integer)
    dead_offset: Mapped[int | None] = mapped_column(BigInteger)
    replayed_at: Mapped[datetime | None] = mapped_column(UtcDateTime, comment="sent to be inspected again, last")
    replayed_by: Mapped[str | None] = mapped_column(String(128))
    purged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    purged_by: Mapped[str | None] = mapped_column(String(128))


TABLES: Final = tuple(Base.metadata.sorted_tables)
