"""Posts that are planned and incidents that last; settings and tasks that an administrator has changed."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    with op.batch_alter_table("posts") as batch:
        batch.add_column(sa.Column("is_announced", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch.add_column(sa.Column("edited_at", UtcDateTime(), nullable=True))
        batch.add_column(sa.Column("began_at", UtcDateTime(), nullable=True))
        batch.add_column(sa.Column("resolved_at", UtcDateTime(), nullable=True))
    with op.batch_alter_table("tasks") as batch:
        batch.add_column(sa.Column("own_schedule", sa.String(16), nullable=False, server_default=""))
        batch.add_column(sa.Column("is_shelved", sa.Boolean(), nullable=False, server_default=sa.false()))
    # the largest first, and how large all are together, without reading the manifests that stand before it
    op.create_index("ix_checkpoints_size_bytes", "checkpoints", ["size_bytes"])
    op.create_table(
        "site_settings",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_site_settings_user_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("name", name="pk_site_settings"),
    )


def downgrade() -> None:
    op.drop_table("site_settings")
    op.drop_index("ix_checkpoints_size_bytes", "checkpoints")
    with op.batch_alter_table("tasks") as batch:
        for name in ("is_shelved", "own_schedule"):
            batch.drop_column(name)
    with op.batch_alter_table("posts") as batch:
        for name in ("resolved_at", "began_at", "edited_at", "is_announced"):
            batch.drop_column(name)
