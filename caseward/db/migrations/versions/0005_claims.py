"""People claim cases."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cases", sa.Column("assignee", sa.Text(), nullable=True))
    claimed = sa.text("assignee IS NOT NULL")
    op.create_index("ix_cases_assignee", "cases", ["assignee", "changed_at", "id"], postgresql_where=claimed)


def downgrade() -> None:
    op.drop_index("ix_cases_assignee", table_name="cases")
    op.drop_column("cases", "assignee")
