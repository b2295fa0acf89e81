"""The scores of each checkpoint as columns, made from the results there are; and failures found without a search."""

from itertools import groupby

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

# As `registry.columns` had it.
RECORD = np.dtype(
    [
        ("task", "<i8"),
        ("evaluation", "<i8"),
        ("value", "<f8"),
        ("low", "<f8"),
        ("high", "<f8"),
        ("n", "<i4"),
        ("verdict", "<i2"),
        ("protocol", "S16"),
    ]
)
VERDICTS = ("", "gain", "loss", "within noise")
RESULTS = """
    SELECT e.checkpoint_id, r.metric, e.task_id, e.id, r.value, r.low, r.high, r.n, c.verdict, e.protocol_key
    FROM results r JOIN evaluations e ON e.id = r.evaluation_id LEFT JOIN changes c ON c.evaluation_id = e.id
    WHERE e.status = 'finished' AND e.checkpoint_id = :checkpoint ORDER BY r.metric, e.id
"""


def upgrade() -> None:
    table = op.create_table(
        "score_columns",
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(length=48), nullable=False),
        sa.Column("records", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_score_columns_checkpoint_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("checkpoint_id", "metric", name=op.f("pk_score_columns")),
    )
    op.create_index(
        "ix_evaluations_failed",
        "evaluations",
        ["task_id"],
        sqlite_where=sa.text("status = 'failed'"),
        postgresql_where=sa.text("status = 'failed'"),
    )
    connection = op.get_bind()
    for (checkpoint,) in connection.execute(sa.text("SELECT id FROM checkpoints ORDER BY id")).all():
        rows = connection.execute(sa.text(RESULTS), {"checkpoint": checkpoint}).all()
        for metric, found in groupby(rows, key=lambda row: row.metric):
            records = np.array([_record(row) for row in found], dtype=RECORD).tobytes()
            connection.execute(sa.insert(table).values(checkpoint_id=checkpoint, metric=metric, records=records))


def _record(row: sa.Row) -> tuple:
    numbers = (row.task_id, row.id, row.value, row.low, row.high, row.n)
    return (*numbers, VERDICTS.index(row.verdict or ""), (row.protocol_key or "").encode())


def downgrade() -> None:
    op.drop_index("ix_evaluations_failed", table_name="evaluations")
    op.drop_table("score_columns")
