"""After a partner's outage: everything that is blocked is released in bulk, and the partner never gets too much.

Real Postgres, the real sandbox over HTTP, the real activities; the test plays the workflows, so that what is
measured is the bulk run and not how fast this machine runs Temporal.
"""

import asyncio
import time
from collections import Counter
from datetime import datetime

import httpx2
import pytest
from sqlalchemy import func, select

from caseward.cases.blocked import blocked_groups
from caseward.cases.bulk import BulkOrder, Group, order_bulk
from caseward.cases.bulk_drive import drive
from caseward.cases.bulk_queries import get_bulk
from caseward.cases.timeline import first_break
from caseward.db.session import Database
from caseward.db.tables import Case, Entry
from dev.stack import Stack
from tests.faults.many import Copier, Office
from tests.integration.desk import envelope
from tests.integration.parcels import OPERATOR
from tests.integration.test_engine_bulk import most_in_a_second
from worker import connect_partners

HANDS = 6  # who play the workflows


@pytest.mark.parametrize(
    ("how_many", "limit"), [(200, 15), pytest.param(10_000, 20, marks=pytest.mark.full)], ids=["200", "10000"]
)
async def test_thousands_are_released_without_exceeding_the_partners_limit(
    settings_for, tmp_path, how_many: int, limit: int, report
):
    async with Stack(settings_for(tmp_path / "data"), only=("postgres", "migrations", "sandbox")) as stack:
        database = Database.connect(stack.database_url)
        partners = connect_partners(stack.settings)
        async with httpx2.AsyncClient(base_url=stack.settings.sandbox_url, trust_env=False, timeout=60) as sandbox:
            office = Office(database, partners, {"bank": limit})
            template = await office.blocked_vendor(sandbox)
            await Copier(database).copy(template.id, how_many - 1)
            started = time.monotonic()
            run = await release(office)
            took = time.monotonic() - started
            ledger = (await sandbox.get("/_control/ledger", params={"partner": "bank"})).raise_for_status().json()

        assert (run.state, run.counts["repaired"], run.total, run.rate) == ("completed", how_many, how_many, limit)
        arrived = Counter(entry["key"] for entry in ledger)
        assert (len(arrived), set(arrived.values())) == (how_many, {1})
        most = most_in_a_second(sorted(datetime.fromisoformat(entry["at"]) for entry in ledger))
        print(f"{how_many} released in {took:.0f} s, {how_many / took:.1f} a second, at most {most} in any second")  # noqa: T201
        assert most <= limit
        async with database.transaction() as session:
            states = dict((await session.execute(select(Case.state, func.count()).group_by(Case.state))).all())
            assert states == {"in_review": how_many}
            for case in await session.scalars(select(Case).order_by(func.random()).limit(50)):
                entries = list(
                    await session.scalars(select(Entry).where(Entry.case_id == case.id).order_by(Entry.number))
                )
                assert first_break(entries, case.timeline_head) is None
        await partners.aclose()
        await database.close()
        report.of_release(how_many, limit, most, took)


async def release(office: Office):
    """Order the retry of all, and let everybody do their part until it is over. Two drive it, as after a lost lock."""
    async with office.database.transaction() as session:
        (group,) = (await blocked_groups(session, office.catalogue, actor=OPERATOR)).groups
        order = BulkOrder(
            override="retry",
            reason="The bank is back",
            group=Group(process=group.process, step=group.step, partner=group.partner, fingerprint=group.fingerprint),
            canary=5,
            rate=1000,
            stop_after=1,
            look=False,
        )
        bulk_id = await order_bulk(session, office.catalogue, order=order, envelope=envelope(OPERATOR))
    over = asyncio.Event()

    async def driver() -> None:
        while await drive(office.database, office.catalogue):
            pass
        over.set()

    async def hand() -> None:
        while not over.is_set():
            if not await office.work_off(4):
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for each in (driver, driver, *(hand for _ in range(HANDS))):
            group.create_task(each())
    async with office.database.transaction() as session:
        return await get_bulk(session, bulk_id=bulk_id)
