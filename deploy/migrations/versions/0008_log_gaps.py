"""Messages that retention deleted before they were read.

Revision: 0008, after 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_gaps",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("topic", sa.String(length=249), nullable=False),
        sa.Column("topic_id", sa.String(length=64), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("first_offset", sa.BigInteger(), nullable=False, comment="the first that is gone"),
        sa.Column(
            "messages", sa.BigInteger(), nullable=False, comment="offsets that are gone; markers of transactions too"
        ),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_gaps")),
        sa.UniqueConstraint(
            "topic_id", "partition", "first_offset", name=op.f("uq_log_gaps_topic_id_partition_first_offset")
        ),
    )


def downgrade() -> None:
    op.drop_table("log_gaps")
