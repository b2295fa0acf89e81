"""Evaluations of a run are counted by status from an index alone."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_index("ix_evaluations_status", "evaluations", ["checkpoint_id", "status", "task_id"])


def downgrade() -> None:
    op.drop_index("ix_evaluations_status", table_name="evaluations")
