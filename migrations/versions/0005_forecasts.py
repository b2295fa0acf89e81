"""The record of forecasts."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "forecasts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(length=96), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("protocol_key", sa.String(length=16), nullable=False),
        sa.Column("horizon", sa.String(length=16), nullable=False),
        sa.Column("made_step", sa.BigInteger(), nullable=False),
        sa.Column("made_tokens", sa.BigInteger(), nullable=False),
        sa.Column("target_step", sa.BigInteger(), nullable=False),
        sa.Column("target_tokens", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("low", sa.Float(precision=53), nullable=False),
        sa.Column("high", sa.Float(precision=53), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.Float(precision=53), nullable=True),
        sa.Column("outcome_step", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_forecasts_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forecasts")),
        sa.UniqueConstraint(
            "run_id", "task", "metric", "protocol_key", "made_step", "horizon", name="uq_forecasts_made"
        ),
    )
    op.create_index("ix_forecasts_due", "forecasts", ["run_id", "outcome"])


def downgrade() -> None:
    op.drop_table("forecasts")
