"""No rows: the store keeps its books on the disk (docs/decisions/0020). The number was given out before."""

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
