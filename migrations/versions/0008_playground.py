"""The playground: trees of turns, groups of chats, an interface with keys, votes, reports, and a line with lanes.

Old conversations become trees of one branch.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

ONE_SUBJECT = (
    "(CASE WHEN turn_id IS NULL THEN 0 ELSE 1 END) + (CASE WHEN evaluation_id IS NULL THEN 0 ELSE 1 END)"
    " + (CASE WHEN call_id IS NULL THEN 0 ELSE 1 END) = 1"
)
OLD_SUBJECT = "(turn_id IS NULL) <> (evaluation_id IS NULL)"
NEW_LANES = "UPDATE tickets SET lane = lane + 2 WHERE lane > 0"  # arena and probes came between
OLD_LANES = "UPDATE tickets SET lane = CASE WHEN lane < 3 THEN 1 ELSE lane - 2 END WHERE lane > 0"
FIRST_BRANCHES = (
    "UPDATE turns SET parent_id = (SELECT MAX(before.id) FROM turns AS before"
    " WHERE before.chat_id = turns.chat_id AND before.position = turns.position - 1)",
    "UPDATE chats SET leaf_id = (SELECT turns.id FROM turns WHERE turns.chat_id = chats.id"
    " ORDER BY turns.position DESC LIMIT 1)",
    "UPDATE tickets SET user_id = (SELECT chats.user_id FROM turns JOIN chats ON chats.id = turns.chat_id"
    " WHERE turns.id = tickets.turn_id) WHERE turn_id IS NOT NULL",
)


def upgrade() -> None:
    _create_tables()
    _widen_tables()
    for statement in (NEW_LANES, *FIRST_BRANCHES):
        op.execute(statement)


def _create_tables() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    with op.batch_alter_table("api_keys") as table:
        table.create_index(table.f("ix_api_keys_user_id"), ["user_id"], unique=False)

    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("actor_id", sa.Integer(), nullable=True),
        sa.Column("actor_name", sa.String(length=40), nullable=False),
        sa.Column("action", sa.String(length=48), nullable=False),
        sa.Column("subject", sa.String(length=160), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["users.id"], name=op.f("fk_audit_entries_actor_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    with op.batch_alter_table("audit_entries") as table:
        table.create_index(table.f("ix_audit_entries_action"), ["action"], unique=False)
        table.create_index(table.f("ix_audit_entries_created_at"), ["created_at"], unique=False)

    op.create_table(
        "blocked_patterns",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("pattern", sa.String(length=200), nullable=False),
        sa.Column("is_regex", sa.Boolean(), nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("created_by_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["created_by_id"], ["users.id"], name=op.f("fk_blocked_patterns_created_by_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blocked_patterns")),
    )
    op.create_table(
        "chat_groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_chat_groups_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_groups")),
        sa.UniqueConstraint("public_id", name=op.f("uq_chat_groups_public_id")),
    )
    with op.batch_alter_table("chat_groups") as table:
        table.create_index(table.f("ix_chat_groups_user_id"), ["user_id"], unique=False)

    op.create_table(
        "api_calls",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("public_id", sa.String(length=48), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.Integer(), nullable=True),
        sa.Column("checkpoint_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("finish_reason", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoints.id"], name=op.f("fk_api_calls_checkpoint_id")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_api_calls_key_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_calls_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_calls")),
        sa.UniqueConstraint("public_id", name=op.f("uq_api_calls_public_id")),
    )
    with op.batch_alter_table("api_calls") as table:
        table.create_index("ix_api_calls_usage", ["user_id", "created_at"], unique=False)

    op.create_table(
        "votes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=True),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("left_id", sa.Integer(), nullable=False),
        sa.Column("right_id", sa.Integer(), nullable=False),
        sa.Column("choice", sa.String(length=8), nullable=False),
        sa.Column("left_tokens", sa.Integer(), nullable=False),
        sa.Column("right_tokens", sa.Integer(), nullable=False),
        sa.Column("prompt_hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("voter", sa.String(length=16), nullable=False),
        sa.Column("address_hash", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["chat_groups.id"], name=op.f("fk_votes_group_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["left_id"], ["checkpoints.id"], name=op.f("fk_votes_left_id")),
        sa.ForeignKeyConstraint(["right_id"], ["checkpoints.id"], name=op.f("fk_votes_right_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_votes_run_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_votes_user_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_votes")),
        sa.UniqueConstraint("group_id", name=op.f("uq_votes_group_id")),
    )
    with op.batch_alter_table("votes") as table:
        table.create_index("ix_votes_run", ["run_id", "created_at"], unique=False)
        table.create_index(table.f("ix_votes_user_id"), ["user_id"], unique=False)

    op.create_table(
        "reports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("turn_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("decided_by_id", sa.Integer(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["decided_by_id"], ["users.id"], name=op.f("fk_reports_decided_by_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], name=op.f("fk_reports_turn_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_reports_user_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reports")),
    )
    with op.batch_alter_table("reports") as table:
        table.create_index(table.f("ix_reports_state"), ["state"], unique=False)
        table.create_index(table.f("ix_reports_turn_id"), ["turn_id"], unique=False)


def _widen_tables() -> None:
    with op.batch_alter_table("chats") as table:
        table.add_column(sa.Column("leaf_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("group_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("place", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("forked_from_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("share_token", sa.String(length=32), nullable=True))
        table.create_index(table.f("ix_chats_group_id"), ["group_id"], unique=False)
        table.create_unique_constraint(table.f("uq_chats_share_token"), ["share_token"])
        table.create_foreign_key(table.f("fk_chats_group_id"), "chat_groups", ["group_id"], ["id"], ondelete="CASCADE")
        table.create_foreign_key(
            table.f("fk_chats_forked_from_id"), "chats", ["forked_from_id"], ["id"], ondelete="SET NULL"
        )

    with op.batch_alter_table("tickets") as table:
        table.add_column(sa.Column("call_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("user_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("size", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("expected_seconds", sa.Float(), nullable=True))
        table.add_column(sa.Column("low_seconds", sa.Float(), nullable=True))
        table.add_column(sa.Column("high_seconds", sa.Float(), nullable=True))
        table.drop_constraint(table.f("ck_tickets_one_subject"), type_="check")
        table.create_check_constraint(table.f("ck_tickets_one_subject"), ONE_SUBJECT)
        table.create_index("ix_tickets_lane", ["lane", "claimed_at"], unique=False)
        table.create_unique_constraint(table.f("uq_tickets_call_id"), ["call_id"])
        table.create_foreign_key(table.f("fk_tickets_call_id"), "api_calls", ["call_id"], ["id"], ondelete="CASCADE")
        table.create_foreign_key(table.f("fk_tickets_user_id"), "users", ["user_id"], ["id"], ondelete="CASCADE")

    with op.batch_alter_table("turns") as table:
        table.add_column(sa.Column("parent_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("tokens", sa.JSON(), nullable=True))
        table.add_column(sa.Column("rating_reason", sa.String(length=500), nullable=False, server_default=""))
        table.drop_constraint(table.f("uq_turns_chat_id_position"), type_="unique")
        table.create_index("ix_turns_chat", ["chat_id", "id"], unique=False)
        table.create_index(table.f("ix_turns_parent_id"), ["parent_id"], unique=False)
        table.create_foreign_key(table.f("fk_turns_parent_id"), "turns", ["parent_id"], ["id"], ondelete="CASCADE")

    with op.batch_alter_table("users") as table:
        table.add_column(sa.Column("banned_at", sa.DateTime(timezone=True), nullable=True))
        table.add_column(sa.Column("ban_reason", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.execute("DELETE FROM tickets WHERE call_id IS NOT NULL")
    op.execute("DELETE FROM turns WHERE id NOT IN (SELECT MAX(id) FROM turns GROUP BY chat_id, position)")
    op.execute(OLD_LANES)
    with op.batch_alter_table("users") as table:
        table.drop_column("ban_reason")
        table.drop_column("banned_at")

    with op.batch_alter_table("turns") as table:
        table.drop_constraint(table.f("fk_turns_parent_id"), type_="foreignkey")
        table.drop_index(table.f("ix_turns_parent_id"))
        table.drop_index("ix_turns_chat")
        table.create_unique_constraint(table.f("uq_turns_chat_id_position"), ["chat_id", "position"])
        table.drop_column("rating_reason")
        table.drop_column("tokens")
        table.drop_column("parent_id")

    with op.batch_alter_table("tickets") as table:
        table.drop_constraint(table.f("ck_tickets_one_subject"), type_="check")
        table.create_check_constraint(table.f("ck_tickets_one_subject"), OLD_SUBJECT)
        table.drop_constraint(table.f("fk_tickets_user_id"), type_="foreignkey")
        table.drop_constraint(table.f("fk_tickets_call_id"), type_="foreignkey")
        table.drop_constraint(table.f("uq_tickets_call_id"), type_="unique")
        table.drop_index("ix_tickets_lane")
        table.drop_column("high_seconds")
        table.drop_column("low_seconds")
        table.drop_column("expected_seconds")
        table.drop_column("started_at")
        table.drop_column("size")
        table.drop_column("user_id")
        table.drop_column("call_id")

    with op.batch_alter_table("chats") as table:
        table.drop_constraint(table.f("fk_chats_forked_from_id"), type_="foreignkey")
        table.drop_constraint(table.f("fk_chats_group_id"), type_="foreignkey")
        table.drop_constraint(table.f("uq_chats_share_token"), type_="unique")
        table.drop_index(table.f("ix_chats_group_id"))
        table.drop_column("share_token")
        table.drop_column("forked_from_id")
        table.drop_column("place")
        table.drop_column("group_id")
        table.drop_column("leaf_id")

    op.drop_table("reports")
    op.drop_table("votes")
    op.drop_table("api_calls")
    op.drop_table("chat_groups")
    op.drop_table("blocked_patterns")
    op.drop_table("audit_entries")
    op.drop_table("api_keys")
