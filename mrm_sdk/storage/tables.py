"""The tables, typed; every key begins with the tenant."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TENANT = String(255)
IDENTIFIER = String(255)
HEX = String(64)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC, also in a database without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: in UTC, without a zone for SQLite."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database: always aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Names every constraint, so that each can be dropped by a later migration."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_1_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UserRow(Base):
    """A user; the version of their feedback starts at random and grows with every change."""

    __tablename__ = "mrm_users"

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    feedback_version: Mapped[int] = mapped_column("feedback", BigInteger)


class ItemRow(Base):
    """A prompt and a response, content-addressed: stored once for all users who judge it."""

    __tablename__ = "mrm_items"

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    item_key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    prompt: Mapped[str | None] = mapped_column(Text)
    response: Mapped[str | None] = mapped_column(Text)
    embedding: Mapped[bytes | None] = mapped_column(LargeBinary)


class ItemFeaturesRow(Base):
    """Base rewards of an item under one bundle's features, so that no item is ever encoded twice."""

    __tablename__ = "mrm_item_features"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "item_key"], ["mrm_items.tenant", "mrm_items.item_key"], ondelete="CASCADE"),
    )

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    item_key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    features_hash: Mapped[str] = mapped_column("features", HEX, primary_key=True)
    base_rewards: Mapped[bytes] = mapped_column(LargeBinary)


class ComparisonRow(Base):
    """A comparison; ``content`` is a hash over what was judged, which tells a duplicate from a conflict."""

    __tablename__ = "mrm_comparisons"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "user_id"], ["mrm_users.tenant", "mrm_users.user_id"], name="fk_mrm_comparisons_user"
        ),
        ForeignKeyConstraint(
            ["tenant", "chosen"], ["mrm_items.tenant", "mrm_items.item_key"], name="fk_mrm_comparisons_chosen"
        ),
        ForeignKeyConstraint(
            ["tenant", "rejected"], ["mrm_items.tenant", "mrm_items.item_key"], name="fk_mrm_comparisons_rejected"
        ),
        Index("ix_mrm_comparisons_user", "tenant", "user_id", "event_id"),
        Index("ix_mrm_comparisons_chosen", "tenant", "chosen"),
        Index("ix_mrm_comparisons_rejected", "tenant", "rejected"),
    )

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    event_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER)
    chosen: Mapped[bytes] = mapped_column(LargeBinary(32))
    rejected: Mapped[bytes] = mapped_column(LargeBinary(32))
    tie: Mapped[bool]
    strength: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    content: Mapped[bytes] = mapped_column(LargeBinary(32))


class ComparisonFeaturesRow(Base):
    """``z = φ(chosen) − φ(rejected)`` of a comparison under one bundle's features, [K] float32."""

    __tablename__ = "mrm_comparison_features"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "event_id"], ["mrm_comparisons.tenant", "mrm_comparisons.event_id"], ondelete="CASCADE"
        ),
    )

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    event_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    features_hash: Mapped[str] = mapped_column("features", HEX, primary_key=True)
    z: Mapped[bytes] = mapped_column(LargeBinary)


class RatingRow(Base):
    """A rating; ``prompt_key`` is a hash of the prompt: only ratings of the same prompt meet."""

    __tablename__ = "mrm_ratings"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant", "user_id"], ["mrm_users.tenant", "mrm_users.user_id"], name="fk_mrm_ratings_user"
        ),
        ForeignKeyConstraint(
            ["tenant", "item_key"], ["mrm_items.tenant", "mrm_items.item_key"], name="fk_mrm_ratings_item"
        ),
        Index("ix_mrm_ratings_user", "tenant", "user_id"),
        Index("ix_mrm_ratings_item", "tenant", "item_key"),
    )

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    event_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER)
    item_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    prompt_key: Mapped[bytes] = mapped_column(LargeBinary(32))
    value: Mapped[float] = mapped_column(Double)
    strength: Mapped[float] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    content: Mapped[bytes] = mapped_column(LargeBinary(32))


class UserWeightsRow(Base):
    """A user's weights under one bundle: derived, and adapted again when the user's feedback has another version.

    What moved them is NULL, all three, in rows of versions before there were thresholds; those are adapted again too.
    """

    __tablename__ = "mrm_user_weights"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "user_id"], ["mrm_users.tenant", "mrm_users.user_id"], ondelete="CASCADE"),
    )

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(HEX, primary_key=True)
    weights: Mapped[bytes] = mapped_column(LargeBinary)
    covariance: Mapped[bytes | None] = mapped_column(LargeBinary)
    comparisons: Mapped[int] = mapped_column(Integer)
    compared: Mapped[int | None] = mapped_column(Integer)
    rating_pairs: Mapped[int | None] = mapped_column(Integer)
    ratings_alone: Mapped[int | None] = mapped_column(Integer)
    feedback_version: Mapped[int] = mapped_column("feedback", BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)


class BundleRow(Base):
    """A bundle that this database was used with."""

    __tablename__ = "mrm_bundles"

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    fingerprint: Mapped[str] = mapped_column(HEX, primary_key=True)
    features_hash: Mapped[str] = mapped_column("features", HEX)
    name: Mapped[str] = mapped_column(String(255))
    first_used_at: Mapped[datetime] = mapped_column(UtcDateTime)


class TombstoneRow(Base):
    """A user who was forgotten, and when: older events that arrive again are refused."""

    __tablename__ = "mrm_tombstones"

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    event_id: Mapped[str] = mapped_column(IDENTIFIER)
    forgotten_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RetentionRow(Base):
    """The time before which a tenant keeps no events: older ones that arrive again are refused."""

    __tablename__ = "mrm_retention"

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    pruned_before: Mapped[datetime] = mapped_column(UtcDateTime)


class OutboxRow(Base):
    """An event on its way to a server. To come: sync will write and read it; ``forget`` and ``prune`` delete it."""

    __tablename__ = "mrm_outbox"
    __table_args__ = (Index("ix_mrm_outbox_user", "tenant", "user_id"),)

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    event_id: Mapped[str] = mapped_column(IDENTIFIER, primary_key=True)
    user_id: Mapped[str] = mapped_column(IDENTIFIER)
    kind: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ApiKeyRow(Base):
    """A key of the server, kept as a hash. To come: the server will write and read it."""

    __tablename__ = "mrm_api_keys"

    tenant: Mapped[str] = mapped_column(TENANT, primary_key=True)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
