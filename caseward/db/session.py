"""Sessions: one transaction each, on the database's own clock."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from caseward.db.counting import count, note_rows
from caseward.db.write import write_together

CONNECT_TIMEOUT = timedelta(seconds=3)  # Postgres is near; beyond that it is down and the caller should hear so
POOL_TIMEOUT = timedelta(seconds=10)  # for a connection that others have
_SERVER_SIDE = {
    "timezone": "UTC",
    "statement_timeout": "20s",  # longer than any queue for a case's lock in sane operation
    # No transaction waits for anything outside, so one that idles belongs to a frozen or lost process, and goes.
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


def sqlalchemy_url(database_url: str) -> str:
    """A libpq URL as SQLAlchemy wants it."""
    for prefix in ("postgresql+psycopg://", "postgresql://", "postgres://"):
        if database_url.startswith(prefix):
            return "postgresql+psycopg://" + database_url.removeprefix(prefix)
    message = "the database URL must begin with postgresql://"
    raise ValueError(message)


class CountedSession(Session):
    """A session whose early flushes are counted like what is written at the end."""


event.listen(CountedSession, "before_flush", note_rows)


@dataclass(frozen=True)
class Database:
    """The pool of connections and the factory of sessions."""

    engine: AsyncEngine
    sessions: async_sessionmaker[AsyncSession]

    @classmethod
    def connect(cls, database_url: str, *, pool_size: int = 20, pre_ping: bool = True) -> "Database":
        """Opens nothing yet; the first session does.

        With `pre_ping` the first caller after a cut gets a live connection instead of an error, for a round trip each
        time; who tries again anyhow does without.
        """
        engine = create_async_engine(
            sqlalchemy_url(database_url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT.total_seconds(),
            pool_use_lifo=True,  # those that have prepared their statements
            hide_parameters=True,  # errors get logged, and parameters hold the data of people
            pool_pre_ping=pre_ping,
            connect_args={
                "connect_timeout": int(CONNECT_TIMEOUT.total_seconds()),
                "options": " ".join(f"-c {name}={value}" for name, value in _SERVER_SIDE.items()),
            },
        )
        counted = async_sessionmaker(engine, expire_on_commit=False, autoflush=False, sync_session_class=CountedSession)
        return cls(engine, counted)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """One transaction: written, committed and counted at the end, rolled back on any error."""
        async with self.sessions() as session:
            async with session.begin():
                yield session
                note_rows(session.sync_session)
                await write_together(session)
            count(session.sync_session)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def database_now(session: AsyncSession) -> datetime:
    """The instant by the database's clock, moving within the transaction."""
    return (await session.execute(select(func.clock_timestamp()))).scalar_one()
