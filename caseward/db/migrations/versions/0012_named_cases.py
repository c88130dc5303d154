"""Of which processes the cases of a bulk run are that were named one by one: to ask its items is dear in a list.

What the version before orders while both run is listed without a process.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SO_FAR = """
    UPDATE bulk_runs SET named_of = ARRAY(
        SELECT DISTINCT cases.process FROM bulk_items JOIN cases ON cases.id = bulk_items.case_id
        WHERE bulk_items.bulk_id = bulk_runs.id ORDER BY 1
    ) WHERE wanted IS NULL
"""


def upgrade() -> None:
    names = postgresql.ARRAY(sa.Text())
    column = sa.Column("named_of", names, server_default=sa.text("'{}'"), nullable=False)
    op.add_column("bulk_runs", column, if_not_exists=True)
    # The column is committed first: reading the items may take long, and nobody could read the runs meanwhile.
    with op.get_context().autocommit_block():
        op.execute(SO_FAR)


def downgrade() -> None:
    op.drop_column("bulk_runs", "named_of")
