"""Uploads that go on where they stopped."""

import sqlalchemy as sa
from alembic import op

from registry.models.base import UtcDateTime

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("folder", sa.String(32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(63), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("tokens_seen", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("place", sa.String(120), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("error_values", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("checkpoint_id", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_uploads_user_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_uploads_job_id", ondelete="SET NULL"),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"], ["checkpoints.id"], name="fk_uploads_checkpoint_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint("folder", name="uq_uploads_folder"),
        sa.UniqueConstraint("place", name="uq_uploads_place"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_uploads_status", "uploads", ["status", "expires_at"])
    op.create_index("ix_uploads_user_id", "uploads", ["user_id"])
    op.create_table(
        "upload_files",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("upload_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(500), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified", sa.BigInteger(), nullable=True),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["upload_id"], ["uploads.id"], name="fk_upload_files_upload_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_upload_files"),
    )
    op.create_index("ix_upload_files_upload_id", "upload_files", ["upload_id"])


def downgrade() -> None:
    op.drop_table("upload_files")
    op.drop_table("uploads")
