"""200 cases while something is killed every few seconds: all complete, nothing twice, nothing missing."""

import asyncio
import random
from contextlib import suppress

import pytest

from tests.faults.company import Company

VICTIMS = ("api", "worker", "temporal", "postgres")


@pytest.mark.parametrize(("cases", "pause"), [(12, (1.0, 3.0)), pytest.param(200, (2.0, 5.0), marks=pytest.mark.full)])
async def test_random_kills_under_load(company: Company, cases: int, pause: tuple[float, float], seed: int, report):
    chance = random.Random(seed)
    killed: list[str] = []

    async def kill_now_and_then() -> None:
        while True:
            await asyncio.sleep(chance.uniform(*pause))
            victim = chance.choice(VICTIMS)
            killed.append(victim)
            await company.stack.kill(victim)
            await company.stack.start_service(victim)
            died = [name for name, child in company.stack.children.items() if not child.running]
            assert not died, f"{died} did not survive the death of {victim}"

    async def onboard(slots: asyncio.Semaphore) -> dict:
        async with slots:
            case = await company.in_review()
            await company.approve(case)
            return await company.settled(case, "active")

    killer = asyncio.create_task(kill_now_and_then())
    try:
        slots = asyncio.Semaphore(12)
        done = await asyncio.gather(*(onboard(slots) for _ in range(cases)))
    finally:
        killer.cancel()
        with suppress(asyncio.CancelledError):
            await killer
    for name in VICTIMS:  # the last victim may have been on its way up
        if not company.stack.children[name].running:
            await company.stack.launch_service(name)
        await company.stack.wait_ready(name)

    assert len(done) == cases
    await report.of_soak(seed, killed, company, cases)
