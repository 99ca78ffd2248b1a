"""The first schema.

Revision: 0001, after None
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "mrm_api_keys",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "key_hash", name="pk_mrm_api_keys"),
    )
    op.create_table(
        "mrm_bundles",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("features", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "fingerprint", name="pk_mrm_bundles"),
    )
    op.create_table(
        "mrm_items",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("item_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "item_key", name="pk_mrm_items"),
    )
    op.create_table(
        "mrm_outbox",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "event_id", name="pk_mrm_outbox"),
    )
    op.create_index("ix_mrm_outbox_user", "mrm_outbox", ["tenant", "user_id"], unique=False)
    op.create_table(
        "mrm_tombstones",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "user_id", name="pk_mrm_tombstones"),
    )
    op.create_table(
        "mrm_users",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("feedback", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "user_id", name="pk_mrm_users"),
    )
    op.create_table(
        "mrm_comparisons",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("chosen", sa.LargeBinary(length=32), nullable=False),
        sa.Column("rejected", sa.LargeBinary(length=32), nullable=False),
        sa.Column("tie", sa.Boolean(), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "chosen"], ["mrm_items.tenant", "mrm_items.item_key"], name="fk_mrm_comparisons_chosen"
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "rejected"], ["mrm_items.tenant", "mrm_items.item_key"], name="fk_mrm_comparisons_rejected"
        ),
        sa.ForeignKeyConstraint(
            ["tenant", "user_id"], ["mrm_users.tenant", "mrm_users.user_id"], name="fk_mrm_comparisons_user"
        ),
        sa.PrimaryKeyConstraint("tenant", "event_id", name="pk_mrm_comparisons"),
    )
    op.create_index("ix_mrm_comparisons_chosen", "mrm_comparisons", ["tenant", "chosen"], unique=False)
    op.create_index("ix_mrm_comparisons_rejected", "mrm_comparisons", ["tenant", "rejected"], unique=False)
    op.create_index("ix_mrm_comparisons_user", "mrm_comparisons", ["tenant", "user_id", "event_id"], unique=False)
    op.create_table(
        "mrm_item_features",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("item_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("features", sa.String(length=64), nullable=False),
        sa.Column("base_rewards", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "item_key"],
            ["mrm_items.tenant", "mrm_items.item_key"],
            name="fk_mrm_item_features_item_key",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "item_key", "features", name="pk_mrm_item_features"),
    )
    op.create_table(
        "mrm_user_weights",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("weights", sa.LargeBinary(), nullable=False),
        sa.Column("covariance", sa.LargeBinary(), nullable=True),
        sa.Column("comparisons", sa.Integer(), nullable=False),
        sa.Column("feedback", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "user_id"],
            ["mrm_users.tenant", "mrm_users.user_id"],
            name="fk_mrm_user_weights_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "user_id", "fingerprint", name="pk_mrm_user_weights"),
    )
    op.create_table(
        "mrm_comparison_features",
        sa.Column("tenant", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("features", sa.String(length=64), nullable=False),
        sa.Column("z", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "event_id"],
            ["mrm_comparisons.tenant", "mrm_comparisons.event_id"],
            name="fk_mrm_comparison_features_event_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", "event_id", "features", name="pk_mrm_comparison_features"),
    )


def downgrade() -> None:
    op.drop_table("mrm_comparison_features")
    op.drop_table("mrm_user_weights")
    op.drop_table("mrm_item_features")
    op.drop_index("ix_mrm_comparisons_user", table_name="mrm_comparisons")
    op.drop_index("ix_mrm_comparisons_rejected", table_name="mrm_comparisons")
    op.drop_index("ix_mrm_comparisons_chosen", table_name="mrm_comparisons")
    op.drop_table("mrm_comparisons")
    op.drop_table("mrm_users")
    op.drop_table("mrm_tombstones")
    op.drop_index("ix_mrm_outbox_user", table_name="mrm_outbox")
    op.drop_table("mrm_outbox")
    op.drop_table("mrm_items")
    op.drop_table("mrm_bundles")
    op.drop_table("mrm_api_keys")
