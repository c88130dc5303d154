"""Sessions: one transaction each, on the database's own clock."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from caseward.db.write import write_together

CONNECT_TIMEOUT = timedelta(seconds=3)  # Postgres is near; beyond that it is down and the caller should hear so
STATEMENT_TIMEOUT = timedelta(seconds=20)  # longer than any queue for a case's lock in sane operation


def sqlalchemy_url(database_url: str) -> str:
    """A libpq URL as SQLAlchemy wants it."""
    for prefix in ("postgresql+psycopg://", "postgresql://", "postgres://"):
        if database_url.startswith(prefix):
            return "postgresql+psycopg://" + database_url.removeprefix(prefix)
    message = "the database URL must begin with postgresql://"
    raise ValueError(message)


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
            pool_timeout=10,
            hide_parameters=True,  # errors get logged, and parameters hold the data of people
            pool_pre_ping=pre_ping,
            connect_args={
                "connect_timeout": int(CONNECT_TIMEOUT.total_seconds()),
                "options": f"-c statement_timeout={int(STATEMENT_TIMEOUT.total_seconds() * 1000)} -c timezone=UTC",
            },
        )
        return cls(engine, async_sessionmaker(engine, expire_on_commit=False, autoflush=False))

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """One transaction: written and committed at the end, rolled back on any error."""
        async with self.sessions() as session, session.begin():
            yield session
            await write_together(session)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def database_now(session: AsyncSession) -> datetime:
    """The instant by the database's clock, moving within the transaction."""
    return (await session.execute(select(func.clock_timestamp()))).scalar_one()
