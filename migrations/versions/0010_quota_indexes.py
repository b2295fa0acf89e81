"""What a person has used today, and has under way, is read from indexes alone, however much they ever asked for."""

from alembic import op

revision = "0010"
down_revision = "0009"

USAGE = "ix_api_calls_usage"
OPEN = "ix_api_calls_open"


def upgrade() -> None:
    op.drop_index(USAGE, table_name="api_calls")
    op.create_index(USAGE, "api_calls", ["user_id", "created_at", "prompt_tokens", "completion_tokens"])
    op.create_index(OPEN, "api_calls", ["user_id", "status"])


def downgrade() -> None:
    op.drop_index(OPEN, table_name="api_calls")
    op.drop_index(USAGE, table_name="api_calls")
    op.create_index(USAGE, "api_calls", ["user_id", "created_at"])
