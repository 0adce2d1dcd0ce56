"""Which model inspects which camera.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_assignments",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "camera", sa.String(length=128), nullable=True, comment="null: every camera that has none of its own"
        ),
        sa.Column("role", sa.String(length=16), nullable=False, comment="active or shadow"),
        sa.Column("bundle", sa.Text(), nullable=True, comment="absolute path; null: nothing is assigned any more"),
        sa.Column("model_id", sa.String(length=64), nullable=True, comment="of the bundle"),
        sa.Column("assigned_by", sa.String(length=128), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_assignments")),
    )


def downgrade() -> None:
    op.drop_table("model_assignments")
