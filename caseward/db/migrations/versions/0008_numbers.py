"""Attempts are found by when they were made, open cases that owe nothing by their state.

Built while the version before goes on: a plain CREATE INDEX would stop every write to a large table meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What was interrupted leaves an index that is there and not valid: IF NOT EXISTS would take it for done.
        _drop()
        op.create_index(
            "ix_attempts_started",
            "attempts",
            ["started_at"],
            postgresql_using="brin",
            postgresql_with={"autosummarize": True},
            postgresql_concurrently=True,
        )
        op.create_index(
            "ix_cases_done",
            "cases",
            ["process", "state", "state_since", "condition_since"],
            postgresql_where=sa.text("condition = 'done' AND NOT final"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _drop()


def _drop() -> None:
    for index, table in (("ix_cases_done", "cases"), ("ix_attempts_started", "attempts")):
        op.drop_index(index, table_name=table, if_exists=True, postgresql_concurrently=True)
