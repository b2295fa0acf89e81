"""Names that point at checkpoints, and rules of which checkpoints keep their files."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_aliases_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_aliases_checkpoint_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_aliases_user_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_aliases"),
        sa.UniqueConstraint("run_id", "name", name="uq_aliases_run_id_name"),
    )
    op.create_index("ix_aliases_checkpoint_id", "aliases", ["checkpoint_id"])
    op.create_table(
        "retention_rules",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("keep_newest", sa.Integer(), nullable=False),
        sa.Column("keep_best", sa.Integer(), nullable=False),
        sa.Column("keep_milestones", sa.Boolean(), nullable=False),
        sa.Column("is_scheduled", sa.Boolean(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("applied_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_retention_rules_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_retention_rules_user_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("run_id", name="pk_retention_rules"),
    )


def downgrade() -> None:
    op.drop_table("retention_rules")
    op.drop_table("aliases")
