"""Migrations run while the version before goes on, and twice at once."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from psycopg import sql

from caseward.db.migrate import configuration, migrate
from caseward.db.session import Database
from dev.service import ROOT

WITHIN = 120  # seconds, of which a fast machine needs one
# What 0008 and 0010 add to tables that may be large: indexes, and statistics of columns that go together.
ADDED = {
    *("ix_attempts_started", "ix_cases_done"),
    *("ix_cases_recovery_owner", "ix_cases_waiting_on", "ix_cases_state", "ix_cases_process"),
    *("st_cases_alike", "st_cases_waiting"),
}
# Four are connected: the writer, who asks this, and two who migrate, one of them held up by the writer.
WAITING = """
    SELECT count(*) = 4 AND bool_or(query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock')
    FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
"""


@pytest.fixture
def url(database: Database):
    """A database of the test's own, at the revision before the indexes."""
    server = database.engine.url.set(drivername="postgresql")
    name = f"migrated_{uuid4().hex}"
    create, drop = (
        sql.SQL(statement).format(sql.Identifier(name))
        for statement in ("CREATE DATABASE {}", "DROP DATABASE {} WITH (FORCE)")
    )
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(create)
        own = server.set(database=name).render_as_string(hide_password=False)
        command.upgrade(configuration(own), "0007")
        yield own
        connection.execute(drop)


@asynccontextmanager
async def migrating(url: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "caseward.db.migrate"), cwd=ROOT, env={**os.environ, "CASEWARD_DATABASE_URL": url}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def added(url: str) -> set[str]:
    """Those that are there, and valid."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("""
            SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid
            UNION SELECT stxname::text FROM pg_statistic_ext
        """).fetchall()
    return {name for (name,) in rows} & ADDED


async def until_it_waits(url: str) -> None:
    async with asyncio.timeout(WITHIN), await psycopg.AsyncConnection.connect(url, autocommit=True) as watching:
        while (await (await watching.execute(WAITING)).fetchone()) != (True,):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("before", "written"), [("0007", "attempts"), ("0009", "cases")])
async def test_indexes_are_built_while_others_write_and_somebody_else_migrates(url: str, before: str, written: str):
    command.upgrade(configuration(url), before)
    writer = await psycopg.AsyncConnection.connect(url)
    await writer.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(written)))  # and goes on for a while
    async with migrating(url) as first, migrating(url) as second:
        await until_it_waits(url)
        async with await psycopg.AsyncConnection.connect(url) as another:
            await another.execute("SET lock_timeout = '1s'")
            await another.execute("DELETE FROM attempts")
            await another.execute("DELETE FROM cases")
        await writer.commit()
        await writer.close()
        async with asyncio.timeout(WITHIN):
            assert (await first.wait(), await second.wait()) == (0, 0)
    assert added(url) == ADDED


@pytest.mark.parametrize("index", ["ix_cases_done", "ix_cases_process"])
def test_what_was_interrupted_is_built_anew(url: str, index: str):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE INDEX {} ON cases (process)").format(sql.Identifier(index)))
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [index])
        connection.execute("CREATE STATISTICS st_cases_alike ON process, state FROM cases")
    migrate(url)
    assert added(url) == ADDED
    command.downgrade(configuration(url), "0007")
    assert added(url) == set()
