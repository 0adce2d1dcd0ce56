"""Where a dead letter's bytes lie, and what people did with it.

Revision: 0005, after 0004.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column(
            "sha256", sa.String(length=64), nullable=True, comment="of its bytes; null: from before it was recorded"
        ),
        sa.Column("dead_topic", sa.String(length=249), nullable=True, comment="where its bytes lie"),
        sa.Column("dead_topic_id", sa.String(length=64), nullable=True),
        sa.Column("dead_partition", sa.Integer(), nullable=True),
        sa.Column("dead_offset", sa.BigInteger(), nullable=True),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True, comment="sent to be inspected again, last"),
        sa.Column("replayed_by", sa.String(length=128), nullable=True),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("purged_by", sa.String(length=128), nullable=True),
    )


def upgrade() -> None:
    for column in _columns():
        op.add_column("dead_letters", column)
    op.create_index(op.f("ix_dead_letters_frame_id"), "dead_letters", ["frame_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_dead_letters_frame_id"), "dead_letters")
    for column in reversed(_columns()):
        op.drop_column("dead_letters", column.name)
