"""The most memory that engines were seen to hold."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "memory_peaks",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("architecture", sa.String(16), nullable=False),
        sa.Column("engine", sa.String(32), nullable=False),
        sa.Column("dtype", sa.String(16), nullable=False),
        sa.Column("device", sa.String(8), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("kv_tokens", sa.Integer(), nullable=False),
        sa.Column("step_tokens", sa.Integer(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), sa.ForeignKey("checkpoints.id", ondelete="SET NULL")),
        sa.Column("measured_at", UtcDateTime(), nullable=False),
        sa.UniqueConstraint("architecture", "engine", "dtype", "device"),
    )


def downgrade() -> None:
    op.drop_table("memory_peaks")
