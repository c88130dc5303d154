"""Whoever waited for a case's lock sees all that the one before wrote, not only the case's own row."""

import asyncio

from sqlalchemy import text

from caseward.cases import effects
from caseward.cases.effects import OpenStep
from caseward.cases.locked import LockedCase, lock_case
from caseward.situation import SYSTEM
from tests.integration.desk import Desk
from tests.integration.parcels import OFFERS, parcels

WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


class TestTwoWriters:
    async def test_the_second_sees_the_effect_that_the_first_reserved(self, database):
        case = await Desk(database, parcels()).open()
        await case.take("ship")
        call = await case.call("book_carrier")
        async with database.transaction() as session:
            opened = await effects.open_step(session, case.desk.catalogue, call)
            assert isinstance(opened, OpenStep)
            second = asyncio.create_task(self.look(case))
            await self.somebody_waits(database)
            await effects.reserve(opened, call, OFFERS["repeatable"], "repeatable", {"call": "repeatable"})
        seen = await second
        assert [effect.step for effect in seen.driven()] == ["book_carrier"]
        assert seen.driven()[0].state == "running"

    async def test_the_second_sees_the_state_that_the_first_entered(self, database):
        case = await Desk(database, parcels()).open()
        async with database.transaction() as session:
            work = await lock_case(session, case.desk.catalogue, case.id)
            second = asyncio.create_task(self.look(case))
            await self.somebody_waits(database)
            work.entry("deadline.passed", actor=SYSTEM, state="Draft")
            work.enter("stored")
            work.touch()
        seen = await second
        assert (seen.case.state, seen.case.version) == ("stored", work.case.version)

    async def look(self, case) -> LockedCase:
        async with case.desk.database.transaction() as session:
            return await lock_case(session, case.desk.catalogue, case.id)

    async def somebody_waits(self, database) -> None:
        async with database.transaction() as session:
            while not await session.scalar(WAITING):
                await asyncio.sleep(0.01)
