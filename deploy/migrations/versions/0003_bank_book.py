"""The bank's book: orders, pauses, reviews that can be taken back, who took an entry out.

Revision: 0003, after 0002.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

IN_FORCE = sa.text("withdrawn_at IS NULL")


def _text(name: str, length: int | None = None, *, null: bool = True, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length) if length else sa.Text(), nullable=null, comment=comment)


def _time(name: str, *, null: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=null)


def _key() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _policy(comment: str) -> sa.Column[str]:
    # Whatever was stored before there were rules is a person's word.
    return sa.Column("policy", sa.String(length=16), nullable=False, server_default="person", comment=comment)


def upgrade() -> None:
    with op.batch_alter_table("reviews") as reviews:
        reviews.drop_constraint("uq_reviews_frame_id", type_="unique")
        reviews.add_column(_policy("person or rule: whose word it is"))
        reviews.add_column(_text("hidden_frame_id", 128, comment="the defect that it would have hidden"))
        reviews.add_column(_text("hidden_picture", 64, comment="image store: both frames' patches, PNG"))
        reviews.add_column(_time("withdrawn_at"))
        reviews.add_column(_text("withdrawn_by", 128))
        reviews.add_column(_text("withdrawn_why"))
        reviews.create_index(
            "uq_reviews_frame_id_in_force", ["frame_id"], unique=True, sqlite_where=IN_FORCE, postgresql_where=IN_FORCE
        )
    with op.batch_alter_table("bank_entries") as entries:
        size = "what its entry takes"
        entries.add_column(sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0", comment=size))
        which = "which it keeps, a bit each; null: all"
        entries.add_column(sa.Column("locations", sa.LargeBinary(), nullable=True, comment=which))
        entries.add_column(_policy("person or rule: whose word it was"))
        entries.add_column(_time("removed_at"))
        entries.add_column(_text("removed_by", 128))
    op.create_table(
        "bank_orders",
        _key(),
        _text("kind", 16, null=False, comment="quarantine, retract, rollback, restore or rebuild"),
        _text("camera", 128, null=False),
        _text("model_id", 64, null=False),
        _text("frame_id", 128, comment="of quarantine and retract"),
        sa.Column("version", sa.BigInteger(), nullable=True, comment="of rollback: the version to go back to"),
        _text("snapshot_sha256", 64, comment="of restore: its address, image store"),
        _text("ordered_by", 128, null=False),
        _text("why"),
        _time("created_at", null=False),
        _text("outcome", 16, null=False),
        _text("outcome_detail"),
        _time("applied_at"),
        sa.Column("bank_version", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bank_orders")),
    )
    op.create_index(op.f("ix_bank_orders_outcome_id"), "bank_orders", ["outcome", "id"])
    op.create_index(op.f("ix_bank_orders_kind_frame_id"), "bank_orders", ["kind", "frame_id"])
    op.create_table(
        "learning_pauses",
        _key(),
        _text("policy", 16, null=False, comment="person or rule"),
        _text("paused_by", 128, null=False),
        _text("why"),
        _time("paused_at", null=False),
        _text("resumed_by", 128),
        _time("resumed_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_learning_pauses")),
    )
    op.create_index(op.f("ix_learning_pauses_resumed_at"), "learning_pauses", ["resumed_at"])


def downgrade() -> None:
    op.drop_table("learning_pauses")
    op.drop_table("bank_orders")
    with op.batch_alter_table("bank_entries") as entries:
        for name in ("removed_by", "removed_at", "policy", "locations", "size_bytes"):
            entries.drop_column(name)
    # There was one review a frame: what was taken back has no place.
    op.execute("DELETE FROM reviews WHERE withdrawn_at IS NOT NULL")
    with op.batch_alter_table("reviews") as reviews:
        reviews.drop_index("uq_reviews_frame_id_in_force")
        for name in ("withdrawn_why", "withdrawn_by", "withdrawn_at", "hidden_picture", "hidden_frame_id", "policy"):
            reviews.drop_column(name)
        reviews.create_unique_constraint("uq_reviews_frame_id", ["frame_id"])
