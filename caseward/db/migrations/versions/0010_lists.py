"""Lists of cases by owner, by whom they wait on, by state and by process read nothing but their page.

Built while the version before goes on, as in 0008. The statistics say that a state is one of its process and comes with
few conditions, and that whatever waits on somebody is waiting: a planner that takes them for independent expects far
fewer cases, and gathers all that there are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Which cases are in the index of each column; most cases are over, and wait on nobody.
INDEXED = {"recovery_owner": "recovery_owner IS NOT NULL", "waiting_on": "waiting_on IS NOT NULL"} | dict.fromkeys(
    ("state", "process")
)

STATISTICS = {"st_cases_alike": "process, state, condition", "st_cases_waiting": "condition, waiting_on"}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What was interrupted leaves an index that is there and not valid: IF NOT EXISTS would take it for done.
        _drop()
        for column, where in INDEXED.items():
            op.create_index(
                f"ix_cases_{column}",
                "cases",
                [column, "changed_at", "id"],
                postgresql_where=None if where is None else sa.text(where),
                postgresql_concurrently=True,
            )
        for name, columns in STATISTICS.items():
            op.execute(f"CREATE STATISTICS {name} (dependencies, mcv) ON {columns} FROM cases")
        op.execute("ANALYZE cases (process, state, condition, waiting_on)")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _drop()


def _drop() -> None:
    for name in STATISTICS:
        op.execute(f"DROP STATISTICS IF EXISTS {name}")
    for column in reversed(INDEXED):
        op.drop_index(f"ix_cases_{column}", table_name="cases", if_exists=True, postgresql_concurrently=True)
