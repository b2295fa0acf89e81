"""Where checkpoints come from and which are released; jobs that people watch."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    with op.batch_alter_table("checkpoints") as batch:
        batch.add_column(sa.Column("is_released", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("origin", sa.String(24), nullable=False, server_default="training"))
        batch.add_column(sa.Column("user_id", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("derivation", sa.JSON(), nullable=False, server_default="{}"))
        batch.create_index("ix_checkpoints_is_released", ["is_released"])
        batch.create_foreign_key("fk_checkpoints_user_id", "users", ["user_id"], ["id"], ondelete="SET NULL")
    op.execute("UPDATE checkpoints SET origin = 'upload' WHERE run_id IN (SELECT id FROM runs WHERE kind = 'upload')")
    op.create_table(
        "checkpoint_parents",
        sa.Column("child_id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(24), nullable=False),
        sa.ForeignKeyConstraint(
            ["child_id"], ["checkpoints.id"], name="fk_checkpoint_parents_child_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["checkpoints.id"], name="fk_checkpoint_parents_parent_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("child_id", "parent_id", name="pk_checkpoint_parents"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=True),
        sa.Column("args", sa.JSON(), nullable=False),
        sa.Column("progress", sa.Float(53), nullable=False),
        sa.Column("log", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("is_cancel_asked", sa.Boolean(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("worker", sa.String(96), nullable=False),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_jobs_checkpoint_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_jobs_user_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_status", "jobs", ["status", "id"])
    op.create_index("ix_jobs_checkpoint", "jobs", ["checkpoint_id", "kind"])


def downgrade() -> None:
    op.drop_table("jobs")
    op.drop_table("checkpoint_parents")
    with op.batch_alter_table("checkpoints") as batch:
        batch.drop_constraint("fk_checkpoints_user_id", type_="foreignkey")
        batch.drop_index("ix_checkpoints_is_released")
        for name in ("derivation", "user_id", "origin", "is_released"):
            batch.drop_column(name)
