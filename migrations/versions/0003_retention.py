"""The line in time before which a tenant keeps no events.

Revision: 0003, after 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "mrm_retention",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("pruned_before", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_mrm_retention"),
    )


def downgrade() -> None:
    # What was pruned stays gone, but without the line nothing keeps it from being recorded again.
    op.drop_table("mrm_retention")
