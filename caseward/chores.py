"""Chores: what somebody has to look after now and then, done by one process at a time.

Every worker offers to; a lock of the database's session says who does. Who loses the connection loses the lock, and may
for a moment do a chore beside its successor: so each chore is one that may be done twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import structlog

LOCK = 0x63617365  # "case", in the database's space of advisory locks of one number
CANDIDATE_PAUSE = timedelta(seconds=2)  # how soon another process takes over from one that died
HEARTBEAT = timedelta(seconds=1)  # how often we look whether the lock is still ours
FROZEN = timedelta(seconds=10)  # without a heartbeat for so long, Postgres takes the lock from us


@dataclass(frozen=True)
class Chore:
    """One of them. `work` answers True where more of it is due at once."""

    name: str
    every: timedelta
    work: Callable[[], Awaitable[bool]]


async def look_after(database_url: str, chores: Sequence[Chore]) -> None:
    """Do the chores whenever we hold the lock, until cancelled. One that fails is logged and done again later."""
    log = structlog.get_logger("chores")
    conninfo = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo,
                autocommit=True,
                connect_timeout=3,
                options=f"-c idle_session_timeout={int(FROZEN.total_seconds())}s",
            ) as connection:
                found = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone()
                if found and found[0]:
                    await _in_charge(connection, chores, log)
        except psycopg.Error as fault:
            log.warning("connection_lost", error=type(fault).__name__)
        await asyncio.sleep(CANDIDATE_PAUSE.total_seconds())


async def _in_charge(
    connection: psycopg.AsyncConnection, chores: Sequence[Chore], log: structlog.stdlib.BoundLogger
) -> None:
    """Raises psycopg.Error when the connection, and with it the lock, is gone."""
    mine = [asyncio.create_task(_repeat(chore, log)) for chore in chores]
    try:
        while True:
            await asyncio.sleep(HEARTBEAT.total_seconds())
            await connection.execute("SELECT 1")
    finally:
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)


async def _repeat(chore: Chore, log: structlog.stdlib.BoundLogger) -> None:
    while True:
        try:
            again = await chore.work()
        except Exception as fault:  # noqa: BLE001 - a chore that fails must not stop the others
            log.warning("chore_failed", chore=chore.name, error=f"{type(fault).__name__}: {fault}"[:300])
            again = False
        await asyncio.sleep(0 if again else chore.every.total_seconds())
