"""A worker freezes at every place where it could be killed, wakes when another has finished: nothing of it lands."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text

from caseward.chores import LOCK
from tests.faults.company import PATIENCE, Company
from tests.faults.conftest import Report

OTHER = "other-worker"
# The ERP, the bank and the mail; in `before_finish` a transaction is open, which holds the case's lock.
POINTS = (
    "effect.reserved:1",
    "effect.reserved:2",
    "effect.reserved:3",
    "effect.acted:1",
    "effect.acted:2",
    "effect.acted:3",
    "effect.settled:2",
    "operation.before_finish",
    "operation.finished",
    "outbox.claimed",
    "outbox.signalled",
)


@pytest_asyncio.fixture(loop_scope="session")
async def other_worker(company: Company) -> AsyncIterator[str]:
    """Not started yet; afterwards the first one works alone again, whatever happened to it."""
    company.stack.add_worker(OTHER)
    yield OTHER
    await company.stack.stop_service(OTHER)
    del company.stack.children[OTHER]
    first = company.stack.children["worker"]
    if first.running:
        first.send(signal.SIGCONT)
    await company.stack.restart("worker")


@pytest.mark.full
@pytest.mark.parametrize("point", POINTS)
async def test_of_a_worker_that_froze_nothing_lands(company: Company, other_worker: str, point: str, report: Report):
    case = await company.in_review()
    await company.stack.restart("worker", {"CASEWARD_FAILPOINT": f"{point}!"})
    approval = await company.approve(case)
    first = company.stack.children["worker"].pid
    assert first is not None
    await until_frozen(first)
    await company.stack.start_service(other_worker)
    await company.settled(case, "active")
    before = await picture(company, case, approval)

    os.kill(first, signal.SIGCONT)
    await company.stack.stop_service(other_worker)
    alive = await company.in_review()  # by the thawed one, which has had its time for everything it still wanted to do

    assert await picture(company, case, approval) == before
    await report.of_kill("worker frozen", point, company, [case, alive])


async def picture(company: Company, case: dict, approval: dict) -> tuple:
    """What was done, and what came of it. A person's word stands; what the thawed one knows of it stands beside."""
    operation = await company.operator.operation(approval["operation_id"])
    effects = [company.ledger(key=step["effect_key"]) for step in operation["steps"]]
    steps = [
        (step["name"], step["state"], step["outcome"] if step["state"] != "marked_done" else None, step["result"])
        for step in operation["steps"]
    ]
    now = await company.operator.case(case["case_id"])
    return now["state"], now["condition"], operation["state"], steps, [await effect for effect in effects]


async def until_frozen(pid: int) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not is_stopped(pid):
            await asyncio.sleep(0.02)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.full
async def test_the_chores_of_a_frozen_worker_go_to_another(company: Company, other_worker: str):
    first = company.stack.children["worker"].pid
    assert first is not None
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (holder := await in_charge(company)) is None:
            await asyncio.sleep(0.2)
    os.kill(first, signal.SIGSTOP)
    await company.stack.start_service(other_worker)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while await in_charge(company) in {holder, None}:
            await asyncio.sleep(0.2)


async def in_charge(company: Company) -> int | None:
    """The database's process that holds the lock of the chores."""
    async with company.database.transaction() as session:
        held = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = :lock AND granted")
        return await session.scalar(held, {"lock": LOCK})
