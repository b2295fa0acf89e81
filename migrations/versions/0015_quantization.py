"""What the answers of a checkpoint lose when it is quantized."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "quantization_losses",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("against_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.Column("stderr", sa.Float(53), nullable=True),
        sa.Column("low", sa.Float(53), nullable=True),
        sa.Column("high", sa.Float(53), nullable=True),
        sa.Column("p_value", sa.Float(53), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("is_paired", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name="fk_quantization_losses_evaluation_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["against_id"], ["evaluations.id"], name="fk_quantization_losses_against_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("evaluation_id", name="pk_quantization_losses"),
    )
    op.create_index("ix_quantization_losses_against_id", "quantization_losses", ["against_id"])


def downgrade() -> None:
    op.drop_table("quantization_losses")
