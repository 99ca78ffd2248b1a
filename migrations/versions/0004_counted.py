"""What moved a user's weights, by kind.

Revision: 0004, after 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
COLUMNS = ("compared", "rating_pairs", "ratings_alone")


def upgrade() -> None:
    # Weights from before have NULL: they were adapted without thresholds, and are adapted again when next needed.
    for name in COLUMNS:
        op.add_column("mrm_user_weights", sa.Column(name, sa.Integer(), nullable=True))


def downgrade() -> None:
    # To the version before, weights adapted to single ratings are out of date.
    op.execute(
        "UPDATE mrm_users SET feedback = feedback + 1 WHERE EXISTS (SELECT 1 FROM mrm_user_weights AS w "
        "WHERE w.tenant = mrm_users.tenant AND w.user_id = mrm_users.user_id AND w.ratings_alone > 0)"
    )
    for name in reversed(COLUMNS):
        op.drop_column("mrm_user_weights", name)
