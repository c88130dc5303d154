"""Alembic's environment: one upgrade at a time, by advisory lock."""

from alembic import context
from sqlalchemy import create_engine, text

from caseward.db.session import sqlalchemy_url
from caseward.db.tables import Base

MIGRATION_LOCK = 0x6361736577617264  # "caseward"

engine = create_engine(sqlalchemy_url(context.config.attributes["database_url"]))
with engine.connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
    connection.commit()  # the lock is the session's, the migration has a transaction of its own
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
