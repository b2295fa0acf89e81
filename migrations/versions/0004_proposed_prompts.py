"""Prompts that visitors propose."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "proposed_prompts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("decided_by_id", sa.Integer(), nullable=True),
        sa.Column("task_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_proposed_prompts_user_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["decided_by_id"], ["users.id"], name=op.f("fk_proposed_prompts_decided_by_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_proposed_prompts_task_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposed_prompts")),
        sa.UniqueConstraint("item", name=op.f("uq_proposed_prompts_item")),
        sa.UniqueConstraint("task_id", name=op.f("uq_proposed_prompts_task_id")),
    )
    op.create_index(op.f("ix_proposed_prompts_user_id"), "proposed_prompts", ["user_id"])
    op.create_index("ix_proposed_prompts_state", "proposed_prompts", ["state", "created_at"])


def downgrade() -> None:
    op.drop_table("proposed_prompts")
