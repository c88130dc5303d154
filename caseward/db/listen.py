"""LISTEN: one connection that hears what commits announce, and comes back after every cut."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

import psycopg
import structlog
from psycopg import sql

RECONNECT = timedelta(seconds=0.5)


async def listen(database_url: str, channels: Mapping[str, Callable[[str], None]]) -> None:
    """Call each channel's function with every payload, until cancelled.

    After each connecting every function is called with "": something may have been missed.
    """
    log = structlog.get_logger("listen")
    conninfo = database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, connect_timeout=3
            ) as connection:
                for channel in channels:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                for heard in channels.values():
                    heard("")
                async for notice in connection.notifies():
                    channels[notice.channel](notice.payload)
        except psycopg.Error as fault:
            log.warning("connection_lost", error=type(fault).__name__)
            await asyncio.sleep(RECONNECT.total_seconds())
