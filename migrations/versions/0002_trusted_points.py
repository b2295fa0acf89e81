"""Slices, protocols, verdicts and fingerprints.

Old results stay as they are. Their sample files have the older format and are not read any more, so
they begin a line of their own on the charts: their protocol key is `before-0002`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OLD_PROTOCOL = "before-0002"


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("against_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=False),
        sa.Column("stderr", sa.Float(precision=53), nullable=True),
        sa.Column("low", sa.Float(precision=53), nullable=True),
        sa.Column("high", sa.Float(precision=53), nullable=True),
        sa.Column("p_value", sa.Float(precision=53), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("is_paired", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["against_id"], ["evaluations.id"], name=op.f("fk_changes_against_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name=op.f("fk_changes_evaluation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("evaluation_id", name=op.f("pk_changes")),
    )
    op.create_index(op.f("ix_changes_against_id"), "changes", ["against_id"])
    op.create_table(
        "slices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("stop", sa.Integer(), nullable=False),
        sa.Column("file", sa.String(length=255), nullable=False),
        sa.Column("engine_seconds", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name=op.f("fk_slices_evaluation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slices")),
        sa.UniqueConstraint("evaluation_id", "start", name=op.f("uq_slices_evaluation_id_start")),
    )
    with op.batch_alter_table("checkpoints") as table:
        table.add_column(sa.Column("weights_digest", sa.String(length=64), nullable=False, server_default=""))
        table.add_column(sa.Column("tokenizer", sa.String(length=16), nullable=False, server_default=""))
        table.add_column(sa.Column("fingerprint", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("warnings", sa.JSON(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("is_milestone", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.create_index(op.f("ix_checkpoints_weights_digest"), ["weights_digest"])
    with op.batch_alter_table("evaluations") as table:
        table.add_column(sa.Column("log", sa.Text(), nullable=False, server_default=""))
        table.add_column(sa.Column("protocol_key", sa.String(length=16), nullable=True))
        table.add_column(sa.Column("num_done", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("num_truncated", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("ignore_budget", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("items_file", sa.String(length=255), nullable=False, server_default=""))
        table.add_column(sa.Column("is_compared", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.drop_constraint(op.f("uq_evaluations_checkpoint_id_task_id"), type_="unique")
        table.drop_column("samples_file")
        table.create_unique_constraint(
            "uq_evaluations_checkpoint_task_protocol", ["checkpoint_id", "task_id", "protocol_key"]
        )
        table.create_index("ix_evaluations_compared", ["is_compared", "status"])
    evaluations = sa.table(
        "evaluations",
        sa.column("status", sa.String),
        sa.column("protocol_key", sa.String),
        sa.column("num_done", sa.Integer),
        sa.column("num_items", sa.Integer),
    )
    op.execute(
        evaluations.update()
        .where(evaluations.c.status == "finished")
        .values(protocol_key=OLD_PROTOCOL, num_done=sa.func.coalesce(evaluations.c.num_items, 0))
    )
    with op.batch_alter_table("tasks") as table:
        table.add_column(sa.Column("schedule", sa.String(length=16), nullable=False, server_default="panel"))
        table.add_column(sa.Column("needs", sa.String(length=64), nullable=False, server_default=""))
    with op.batch_alter_table("tickets") as table:
        table.add_column(sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    raise NotImplementedError("Slices and verdicts have no place in the older tables; restore a backup instead.")
