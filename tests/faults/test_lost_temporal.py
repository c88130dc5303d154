"""Temporal's database is deleted under load, or replaced by an older one: every case goes on, nothing is done twice."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client as TemporalClient

from caseward.db.tables import Known
from caseward.messages import workflow_id
from tests.faults.company import PATIENCE, Company, company_on

Json = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hasty(settings_for, tmp_path_factory) -> AsyncIterator[Company]:
    """A company whose reconciler has little patience, on a stack of its own: what it loses is not others' loss."""
    settings = settings_for(tmp_path_factory.mktemp("hasty") / "data")
    async with company_on(settings.model_copy(update={"reconcile_after": 2.0, "reconcile_round": 4.0})) as company:
        yield company


def files(company: Company) -> list[Path]:
    return sorted((company.settings.data_dir / "temporal").glob("temporal.db*"))


async def blocked(company: Company) -> Json:
    """At the bank, which refuses."""
    case = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="reject", times=1)
    await company.approve(case)
    return await company.requester.until(case["case_id"], lambda now: now["condition"] == "blocked")


async def keep_opening(company: Company, into: list[Json], enough: asyncio.Event) -> None:
    """Load: vendors are opened and submitted, whatever is away."""
    while not enough.is_set():
        case = await company.draft("load")
        await company.insist(lambda key, case=case: company.requester.take(case, "submit", key=key))
        into.append(case)


async def woken(company: Company, case: Json) -> list[str]:
    entries = await company.operator.timeline(case["case_id"])
    return [entry["data"]["finding"] for entry in entries if entry["type"] == "case.woken"]


async def until_woken(company: Company, case: Json, finding: str) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while finding not in await woken(company, case):
            await asyncio.sleep(0.2)


async def back_up(company: Company) -> Path:
    """Copy Temporal's database as it is now; then time passes, as between any backup and its use."""
    kept = company.settings.data_dir / "kept"
    await company.stack.stop_service("temporal")
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    for file in files(company):
        shutil.copy(file, kept)
    await company.stack.start_service("temporal")
    for _ in range(2):
        mark = await known_mark(company)
        async with asyncio.timeout(120):
            while await known_mark(company) == mark:
                await asyncio.sleep(0.2)
    return kept


async def known_mark(company: Company) -> int:
    async with company.database.transaction() as session:
        known = await session.get(Known, "temporal")
        return known.value["mark"] if known else 0


async def lose(company: Company, backup: Path | None) -> None:
    """Kill Temporal and delete its database, or put the backup in its place."""
    await company.stack.kill("temporal")
    for file in files(company):
        file.unlink()
    if backup is not None:
        shutil.copytree(backup, company.settings.data_dir / "temporal", dirs_exist_ok=True)


LOSSES = [
    pytest.param("deleted", 2, id="deleted"),
    pytest.param("older", 2, id="older", marks=pytest.mark.full),
    pytest.param("deleted", 12, id="deleted-many", marks=pytest.mark.full),
]


@pytest.mark.parametrize(("how", "many"), LOSSES)
async def test_temporal_loses_its_data_under_load(hasty: Company, how: str, many: int, report):
    company = hasty
    resting = [await company.in_review() for _ in range(many)]
    backup = await back_up(company) if how == "older" else None
    stuck = await blocked(company)
    closed = await company.draft()
    await company.requester.take(closed, "cancel")
    await company.fault(partner="bank", call="open_payee", mode="slow", times=many, seconds=2)
    busy = [await company.in_review() for _ in range(many)]
    load: list[Json] = []
    enough = asyncio.Event()
    loading = asyncio.create_task(keep_opening(company, load, enough))
    for case in busy:
        await company.approve(case)

    await lose(company, backup)
    assert (await company.approve(resting[0]))["state"] == "accepted"
    await company.stack.start_service("temporal")
    while len(load) < many:
        await asyncio.sleep(0.1)
    enough.set()
    await loading

    await everybody(company, [*busy, resting[0]], "active")
    await everybody(company, [*load, *resting[1:]], "in_review")
    standing = await company.operator.case(stuck["case_id"])
    assert (standing["condition"], standing["condition_info"]["cause"]) == ("blocked", "rejected")
    await company.operator.override(stuck, "retry", reason="The bank changed its mind", step="open_payee")
    await everybody(company, [stuck], "active")
    finding = "temporal_new" if how == "deleted" else "temporal_restored"
    await until_woken(company, resting[-1], finding)
    assert await woken(company, closed) == []
    await report.of_outage(f"temporal, {how}", company, 2 * many + 2 + len(load))


def at_work(now: Json) -> bool:
    """Its workflow has heard of it: what has yet to be delivered would start another one."""
    return now["operation"] is None or now["operation"]["state"] == "running"


async def everybody(company: Company, cases: list[Json], state: str) -> None:
    for case in cases:
        await company.settled(case, state)


@pytest.mark.parametrize("hand", ["terminate", pytest.param("cancel", marks=pytest.mark.full)])
async def test_somebody_ends_workflows_in_temporals_ui(hasty: Company, hand: str, report):
    company = hasty
    temporal = await TemporalClient.connect(company.stack.temporal_address, namespace="caseward")
    resting, stuck = await company.in_review(), await blocked(company)
    busy = await company.in_review()
    await company.fault(partner="bank", call="open_payee", mode="slow", times=1, seconds=2)
    await company.approve(busy)
    await company.operator.until(busy["case_id"], at_work, within=PATIENCE)
    for case in (resting, stuck, busy):
        handle = temporal.get_workflow_handle(workflow_id("vendor_onboarding", case["case_id"]))
        await (handle.terminate() if hand == "terminate" else handle.cancel())

    await company.settled(busy, "active")
    finding = "workflow_terminated" if hand == "terminate" else "workflow_cancelled"
    for case in (resting, stuck, busy):
        await until_woken(company, case, finding)
    await company.operator.override(stuck, "retry", reason="The bank changed its mind", step="open_payee")
    await company.approve(resting)
    for case in (stuck, resting):
        await company.settled(case, "active")
    await report.of_outage(f"workflows, {hand}", company, 3)
