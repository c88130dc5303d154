"""Alembic's environment: one upgrade at a time, by advisory lock."""

import time

from alembic import context
from sqlalchemy import create_engine, text

from caseward.db.session import sqlalchemy_url
from caseward.db.tables import Base

MIGRATION_LOCK = 0x6361736577617264  # "caseward"
ASK_EVERY = 0.2  # seconds

engine = create_engine(sqlalchemy_url(context.config.attributes["database_url"]))
with engine.connect() as connection:
    # Asked again and again: who waits for the lock in a statement has a snapshot, and an index that is built
    # concurrently waits for everybody's, so that the two would wait for each other.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK}):
        connection.commit()
        time.sleep(ASK_EVERY)  # nothing else runs in a migration that it could hold up
    connection.commit()  # the lock is the session's, the migration has a transaction of its own
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
