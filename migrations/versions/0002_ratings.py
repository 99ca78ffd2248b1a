"""Ratings of single responses.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "mrm_ratings",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("item_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("prompt_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "item_key"], ["mrm_items.tenant", "mrm_items.item_key"], name="fk_mrm_ratings_item"
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "user_id"], ["mrm_users.tenant", "mrm_users.user_id"], name="fk_mrm_ratings_user"
        ),
        sa.PrimaryKeyConstraint("tenant", "event_id", name="pk_mrm_ratings"),
    )
    op.create_index("ix_mrm_ratings_item", "mrm_ratings", ["tenant", "item_key"], unique=False)
    op.create_index("ix_mrm_ratings_user", "mrm_ratings", ["tenant", "user_id"], unique=False)


def downgrade() -> None:
    # Weights adapted to ratings are out of date without them, and texts that were only rated have no event any more.
    op.execute(
        "UPDATE mrm_users SET feedback = feedback + 1 WHERE EXISTS (SELECT 1 FROM mrm_ratings AS r "
        "WHERE r.tenant = mrm_users.tenant AND r.user_id = mrm_users.user_id)"
    )
    op.drop_index("ix_mrm_ratings_user", table_name="mrm_ratings")
    op.drop_index("ix_mrm_ratings_item", table_name="mrm_ratings")
    op.drop_table("mrm_ratings")
    for table in ("mrm_item_features", "mrm_items"):
        compared = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM mrm_comparisons AS c WHERE c.tenant = {table}.tenant "  # noqa: S608  # both names stand above
            f"AND c.{side} = {table}.item_key)"
            for side in ("chosen", "rejected")
        )
        op.execute(f"DELETE FROM {table} WHERE {compared}")  # noqa: S608  # both names stand above
