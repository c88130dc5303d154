"""Attempts are found by when they were made, open cases that owe nothing by their state."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_attempts_started",
        "attempts",
        ["started_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": True},
    )
    op.create_index(
        "ix_cases_done",
        "cases",
        ["process", "state", "state_since", "condition_since"],
        postgresql_where=sa.text("condition = 'done' AND NOT final"),
    )


def downgrade() -> None:
    op.drop_index("ix_cases_done", table_name="cases")
    op.drop_index("ix_attempts_started", table_name="attempts")
