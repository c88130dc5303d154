"""The console and the lists of the API on a company of some size: no page reads what it does not show."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest_asyncio
from sqlalchemy import event, select, text

from bench.plans import big_tables, faults
from bench.screens import plans_of, screens
from bench.seed import fill
from caseward.cases.queries import get_case, get_cases
from caseward.cases.timeline import first_break
from caseward.db.session import Database
from caseward.db.tables import Case, Entry
from caseward.situation import Actor
from dev.stack import Stack
from processes import CATALOGUE
from settings import Settings

CASES = 20_000  # fewer, and reading all of them would be what a planner does
TABLES = {"cases", "subjects", "documents", "operations", "effects", "attempts", "timeline_entries"}


@dataclass(frozen=True)
class Company:
    url: str
    settings: Settings


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def company(settings_for, tmp_path_factory) -> AsyncIterator[Company]:
    settings = settings_for(tmp_path_factory.mktemp("seeded") / "data")
    async with Stack(settings, only=("postgres", "migrations")) as stack:
        await fill(stack.database_url, cases=CASES, rounds=10, processes=1)
        yield Company(stack.database_url, settings)


@pytest_asyncio.fixture(loop_scope="session")
async def database(company: Company) -> AsyncIterator[Database]:
    database = Database.connect(company.url)
    yield database
    await database.close()


async def test_no_screen_reads_more_the_larger_the_company_is(company: Company):
    looked_at = [screen for screen in screens(company.url) if screen.promised]
    big = big_tables(company.url)
    assert big >= TABLES
    plans = await plans_of(company.url, company.settings, looked_at)
    assert {plan.screen for plan in plans} == {screen.name for screen in looked_at}
    at_fault = {f"{plan.screen}: {plan}": found for plan in plans if (found := faults(plan, big))}
    assert not at_fault


async def test_ten_cases_are_told_in_as_many_reads_as_one(database: Database):
    blocked = await ids(database, "SELECT id FROM cases WHERE condition = 'blocked' ORDER BY id LIMIT 10")
    somebody = Actor("olga", frozenset({"operator"}))
    asked: list[str] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    took = Counter[int]()
    for some in (blocked[:1], blocked):
        asked.clear()
        async with database.transaction() as session:
            found = await get_cases(session, CATALOGUE, case_ids=some, actor=somebody)
        assert found.keys() == set(some)
        took[len(some)] = len(asked)
    assert took[10] == took[1] > 0, took


class TestCopies:
    """What is seeded is what the engine would have left."""

    async def test_the_chain_of_every_timeline_is_whole(self, database: Database):
        for case_id in await ids(database, "SELECT id FROM cases TABLESAMPLE SYSTEM (1)"):
            async with database.transaction() as session:
                case = await session.get_one(Case, case_id)
                rows = await session.scalars(select(Entry).where(Entry.case_id == case_id).order_by(Entry.number))
                assert first_break(list(rows), case.timeline_head) is None

    async def test_a_case_says_of_itself_what_its_row_says(self, database: Database):
        somebody = Actor("olga", frozenset({"operator"}))
        for case_id in await ids(database, "SELECT DISTINCT ON (process, state, condition) id FROM cases"):
            async with database.transaction() as session:
                shown = await get_case(session, CATALOGUE, case_id=case_id, actor=somebody)
                case = await session.get_one(Case, case_id)
                assert (shown.condition, shown.condition_info.recovery_owner) == (case.condition, case.recovery_owner)


async def ids(database: Database, query: str) -> list[UUID]:
    async with database.transaction() as session:
        return list(await session.scalars(text(query)))


async def test_a_plan_that_reads_everything_is_found(company: Company):
    with psycopg.connect(company.url.replace("+psycopg", "")) as connection:
        connection.execute("DROP INDEX ix_cases_recovery_owner")
        connection.commit()
    wanted = [screen for screen in screens(company.url) if screen.name == "Work: an owner of nothing"]
    plans = await plans_of(company.url, company.settings, wanted)
    assert any(faults(plan, big_tables(company.url)) for plan in plans)
