"""What models without a say found on inspected frames.

Revision: 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shadow_inspections",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("frame_id", sa.String(length=128), nullable=False),
        sa.Column("camera", sa.String(length=128), nullable=False),
        sa.Column("model_id", sa.String(length=64), nullable=False),
        sa.Column("inspected_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False, comment="normal or defect"),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False, comment="verdict threshold the score was held against"),
        sa.Column("defect_area", sa.Float(), nullable=False, comment="share of the inspected pixels in the mask, 0..1"),
        sa.Column("mask_png", sa.LargeBinary(), nullable=False, comment="0/255 PNG at this network's resolution"),
        sa.Column("bank_version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["frame_id"],
            ["inspections.frame_id"],
            name=op.f("fk_shadow_inspections_frame_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_inspections")),
        sa.UniqueConstraint("frame_id", "model_id", name=op.f("uq_shadow_inspections_frame_id_model_id")),
    )
    op.create_index(op.f("ix_shadow_inspections_camera_inspected_at"), "shadow_inspections", ["camera", "inspected_at"])


def downgrade() -> None:
    op.drop_table("shadow_inspections")
