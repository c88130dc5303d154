"""Stories that take back what earlier operations left standing."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    undoes = sa.Column("undoes", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False)
    op.add_column("operations", undoes)


def downgrade() -> None:
    op.drop_column("operations", "undoes")
