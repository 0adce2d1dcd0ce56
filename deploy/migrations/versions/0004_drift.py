"""Where each camera's drift charts stand.

Revision: 0004, after 0003.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _time(name: str, *, null: bool) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def upgrade() -> None:
    op.create_table(
        "drift_states",
        sa.Column("camera", sa.String(length=128), nullable=False),
        sa.Column("model_id", sa.String(length=64), nullable=False),
        sa.Column("bank_version", sa.BigInteger(), nullable=False),
        _time("updated_at", null=False),
        _time("since", null=False),
        sa.Column("frames", sa.BigInteger(), nullable=False),
        sa.Column(
            "ratio", sa.Float(), nullable=False, comment="of the score's average: 0 as normals are, 1 at the limit"
        ),
        _time("drifting_since", null=True),
        _time("last_drift_at", null=True),
        sa.Column("locations", sa.JSON(), nullable=False, comment="beyond their limit: row, column, ratio"),
        sa.Column("score_ewma", sa.Float(), nullable=False),
        sa.Column("distance_ewma", sa.LargeBinary(), nullable=False, comment="of each location, float32"),
        sa.PrimaryKeyConstraint("camera", "model_id", name=op.f("pk_drift_states")),
    )


def downgrade() -> None:
    op.drop_table("drift_states")
