"""Git's names of small files, mirrors, and checkpoints found by their digest."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "git_blobs",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("oid", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_git_blobs"),
    )
    op.create_table(
        "mirrors",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(60), nullable=False),
        sa.Column("base_url", sa.String(300), nullable=False),
        sa.Column("checked_at", UtcDateTime(), nullable=True),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mirrors"),
        sa.UniqueConstraint("base_url", name="uq_mirrors_base_url"),
    )
    op.create_index("ix_checkpoints_digest", "checkpoints", ["digest"])


def downgrade() -> None:
    op.drop_index("ix_checkpoints_digest", "checkpoints")
    op.drop_table("mirrors")
    op.drop_table("git_blobs")
