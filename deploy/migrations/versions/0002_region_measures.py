"""The measures of regions, and how many a frame has.

Revision: 0002, after 0001. Rows from before keep nulls: their regions cannot be measured without the anomaly map.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Each with the comment of its column.
MEASURES = {
    "length": "longer side of the smallest turned rectangle",
    "breadth": "shorter side of the smallest turned rectangle",
    "aspect_ratio": "length / breadth, >= 1",
    "orientation": "of length, 0..180 degrees from x towards y, down",
    "solidity": "share of the convex hull, 0..1",
    "path_length": "along the region, all branches together",
    "mean_width": "area / path_length",
    "area_mm2": None,
    "length_mm": None,
    "breadth_mm": None,
    "path_length_mm": None,
    "mean_width_mm": None,
}
COUNT = "regions in the mask; the largest have a row"


def upgrade() -> None:
    op.add_column("inspections", sa.Column("region_count", sa.Integer(), nullable=True, comment=COUNT))
    for name, comment in MEASURES.items():
        op.add_column("regions", sa.Column(name, sa.Float(), nullable=True, comment=comment))


def downgrade() -> None:
    for name in reversed(MEASURES):
        op.drop_column("regions", name)
    op.drop_column("inspections", "region_count")
