"""Runs as repositories of the Hugging Face Hub protocol."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "hub_repos",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("namespace", sa.String(96), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_hub_repos_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_hub_repos_user_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("run_id", name="pk_hub_repos"),
    )
    op.create_table(
        "hub_commits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("sha", sa.String(40), nullable=False),
        sa.Column("parent", sa.String(40), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("tree", sa.JSON(), nullable=False),
        sa.Column("ignored", sa.JSON(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("tokens_seen", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("is_waiting", sa.Boolean(), nullable=False),
        sa.Column("checkpoint_id", sa.Integer(), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_hub_commits_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_hub_commits_checkpoint_id", ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_hub_commits_user_id", ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name="pk_hub_commits"),
        sa.UniqueConstraint("run_id", "sha", name="uq_hub_commits_run_id_sha"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_hub_commits_waiting", "hub_commits", ["is_waiting"])
    op.create_index("ix_hub_commits_checkpoint_id", "hub_commits", ["checkpoint_id"])
    op.create_table(
        "hub_refs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("sha", sa.String(40), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_hub_refs_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_hub_refs"),
        sa.UniqueConstraint("run_id", "name", name="uq_hub_refs_run_id_name"),
    )


def downgrade() -> None:
    op.drop_table("hub_refs")
    op.drop_table("hub_commits")
    op.drop_table("hub_repos")
