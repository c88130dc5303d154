"""Parked callbacks that somebody dismissed: who, when and why. They have no case, and so no timeline to stand in.

While the version before runs, its lists of parked callbacks read the whole table: the index that they used is narrower.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TEXTS = ("dismissed_by", "dismissed_role", "dismissed_via", "dismissed_reason", "idempotency_key", "traceparent")
# Of each index its columns, where it applies, and whether it is unique.
INDEXES = {
    "ix_callbacks_parked": (["received_at"], "parked AND dismissed_at IS NULL", False),
    "ix_callbacks_dismissed": (["dismissed_at"], "dismissed_at IS NOT NULL", False),
    "uq_callbacks_idempotency": (["dismissed_by", "idempotency_key"], "idempotency_key IS NOT NULL", True),
}


def upgrade() -> None:
    columns = [sa.Column("dismissed_at", sa.DateTime(timezone=True)), sa.Column("content_digest", sa.LargeBinary())]
    for column in (*columns, *(sa.Column(name, sa.Text()) for name in TEXTS)):
        # They are committed before the indexes are built, which may be interrupted.
        op.add_column("callbacks", column, if_not_exists=True)
    with op.get_context().autocommit_block():
        for name, (indexed, where, unique) in INDEXES.items():
            # What was interrupted leaves an index that is there and not valid: IF NOT EXISTS would take it for done.
            op.drop_index(name, table_name="callbacks", if_exists=True, postgresql_concurrently=True)
            op.create_index(
                *(name, "callbacks", indexed),
                unique=unique,
                postgresql_where=sa.text(where),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, table_name="callbacks")
    op.create_index("ix_callbacks_parked", "callbacks", ["received_at"], postgresql_where=sa.text("parked"))
    for name in ("dismissed_at", *TEXTS, "content_digest"):
        op.drop_column("callbacks", name)
