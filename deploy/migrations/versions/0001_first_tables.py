"""The first tables: inspections, regions, reviews, bank entries, outbox, dead letters.

Revision: 0001, the first.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# Functions: a column or type object belongs to the one table that takes it.
def _key() -> sa.Column[int]:
    return sa.Column("id", _big_id(), nullable=False)


def _big_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, length: int, *, null: bool = False, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=null, comment=comment)


def _time(name: str, *, null: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def _log_position() -> list[sa.Column[Any]]:
    return [
        _text("topic", 249),
        _text("topic_id", 64),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
    ]


def upgrade() -> None:
    _create_inspections()
    _create_regions()
    _create_reviews()
    _create_bank_entries()
    _create_outbox()
    _create_dead_letters()


def _create_inspections() -> None:
    op.create_table(
        "inspections",
        _key(),
        _text("frame_id", 128),
        _text("camera", 128),
        *_log_position(),
        _text("part_serial", 256, null=True),
        _text("lot", 256, null=True),
        _time("captured_at"),
        _time("inspected_at"),
        sa.Column("latency_ms", sa.Float(), nullable=False, comment="from capture to inspected"),
        _text("verdict", 16),
        _text("reason", 64, null=True, comment="why uninspected"),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True, comment="verdict threshold the score was held against"),
        sa.Column("defect_area", sa.Float(), nullable=True, comment="share of the inspected pixels in the mask, 0..1"),
        sa.Column("mask_png", sa.LargeBinary(), nullable=True, comment="0/255 PNG at the network's resolution"),
        _text("model_id", 64),
        sa.Column("bank_version", sa.BigInteger(), nullable=True),
        _text("image_sha256", 64, null=True, comment="address in the image store, if kept"),
        _text("content_type", 64),
        sa.PrimaryKeyConstraint("id", name="pk_inspections"),
        sa.UniqueConstraint("frame_id", name="uq_inspections_frame_id"),
        sa.UniqueConstraint("topic_id", "partition", "offset", name="uq_inspections_topic_id_partition_offset"),
    )
    op.create_index("ix_inspections_camera_captured_at", "inspections", ["camera", "captured_at"])
    op.create_index("ix_inspections_part_serial", "inspections", ["part_serial"])
    op.create_index("ix_inspections_verdict_id", "inspections", ["verdict", "id"])


def _create_regions() -> None:
    spread = "in units of the normals' own spread"
    op.create_table(
        "regions",
        _key(),
        sa.Column("inspection_id", _big_id(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("x", "y", "width", "height")),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("area", "centroid_x", "centroid_y")),
        sa.Column("mean_residual", sa.Float(), nullable=False, comment=spread),
        sa.Column("max_residual", sa.Float(), nullable=False, comment=spread),
        sa.PrimaryKeyConstraint("id", name="pk_regions"),
        sa.ForeignKeyConstraint(
            ["inspection_id"], ["inspections.id"], name="fk_regions_inspection_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_regions_inspection_id", "regions", ["inspection_id"])


def _create_reviews() -> None:
    op.create_table(
        "reviews",
        _key(),
        _text("frame_id", 128),
        _text("verdict", 16, comment="normal or defect, as the person says"),
        _text("reviewer", 128),
        sa.Column("note", sa.Text(), nullable=True),
        _time("created_at"),
        _text("outcome", 16),
        sa.Column("outcome_detail", sa.Text(), nullable=True),
        _time("applied_at", null=True),
        sa.Column("bank_version", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.UniqueConstraint("frame_id", name="uq_reviews_frame_id"),
        sa.ForeignKeyConstraint(["frame_id"], ["inspections.frame_id"], name="fk_reviews_frame_id"),
    )
    op.create_index("ix_reviews_outcome_id", "reviews", ["outcome", "id"])


def _create_bank_entries() -> None:
    unique = ["camera", "model_id", "frame_id", "version_added"]
    op.create_table(
        "bank_entries",
        _key(),
        _text("camera", 128),
        _text("model_id", 64),
        _text("frame_id", 128),
        sa.Column("slot", sa.Integer(), nullable=False),
        _text("image_sha256", 64),
        _text("features_sha256", 64),
        _text("added_by", 128),
        sa.Column("why", sa.Text(), nullable=True),
        _time("added_at"),
        sa.Column("version_added", sa.BigInteger(), nullable=False),
        sa.Column("version_removed", sa.BigInteger(), nullable=True),
        sa.Column("removed_why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_bank_entries"),
        sa.UniqueConstraint(*unique, name="uq_bank_entries_camera_model_id_frame_id_version_added"),
    )
    index = "ix_bank_entries_camera_model_id_version_removed"
    op.create_index(index, "bank_entries", ["camera", "model_id", "version_removed"])


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        _key(),
        _text("dedupe_id", 200),
        _text("topic", 249),
        _text("key", 128),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        _time("created_at"),
        _time("published_at", null=True),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("dedupe_id", name="uq_outbox_dedupe_id"),
    )
    op.create_index("ix_outbox_published_at_id", "outbox", ["published_at", "id"])


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        _key(),
        *_log_position(),
        _text("camera", 128, null=True, comment="from the key, as far as readable"),
        _text("frame_id", 128, null=True, comment="from the headers, as far as readable"),
        _text("reason", 32),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        _time("received_at"),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        sa.UniqueConstraint("topic_id", "partition", "offset", name="uq_dead_letters_topic_id_partition_offset"),
    )


def downgrade() -> None:
    for table in ("dead_letters", "outbox", "bank_entries", "reviews", "regions", "inspections"):
        op.drop_table(table)
