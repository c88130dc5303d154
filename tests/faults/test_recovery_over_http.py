"""Recovery as operators see it, over HTTP on the real stack: a poisoned message, and a group released in bulk."""

import asyncio
import time
from datetime import datetime

import pytest
from sqlalchemy import text

from tests.faults.company import PATIENCE, Company, Json
from tests.integration.test_engine_bulk import most_in_a_second


async def until(ask, wanted) -> Json:
    """The answer as soon as it is as wanted."""
    give_up_at = time.monotonic() + PATIENCE.total_seconds()
    while not wanted(answer := await ask()):
        assert time.monotonic() < give_up_at, answer
        await asyncio.sleep(0.1)
    return answer


async def test_a_poisoned_message_is_parked_and_released_while_others_go_on(company: Company):
    """A message as a newer version would write it: this worker can't read the order in it."""
    await company.stack.stop_service("worker")
    poisoned, healthy = await company.draft("poisoned"), await company.draft("healthy")
    for case in (poisoned, healthy):
        await company.insist(lambda key, case=case: company.requester.take(case, "submit", key=key))
    async with company.database.transaction() as session:
        spoilt = text(
            "UPDATE outbox_messages SET payload = jsonb_set(payload, '{order,of_a_newer_version}', '1'), tries = 4 "
            "WHERE case_id = :id AND payload->'order'->>'name' = 'submit' RETURNING id"
        )
        message_id = (await session.execute(spoilt, {"id": poisoned["case_id"]})).scalar_one()
    await company.stack.start_service("worker")

    mine = {"message_id": message_id}
    parked = await until(
        lambda: company.operator.get("/v1/outbox", parked="true"),
        lambda listed: any(each | mine == each for each in listed["messages"]),
    )
    (message,) = [each for each in parked["messages"] if each["case_id"] == poisoned["case_id"]]
    assert "of_a_newer_version" in message["error"]
    seen = await company.operator.case(poisoned["case_id"])
    assert (seen["state"], seen["condition"]) == ("screening", "queued")
    await company.settled(healthy, "in_review")
    assert "message.parked" in {e["type"] for e in await company.operator.timeline(poisoned["case_id"])}

    async with company.database.transaction() as session:  # the newer version is there
        mended = text("UPDATE outbox_messages SET payload = payload #- '{order,of_a_newer_version}' WHERE id = :id")
        await session.execute(mended, {"id": message_id})
    released = await company.operator.post(f"/v1/outbox/{message_id}/requeue", {})
    assert released["parked"] is False
    await company.settled(poisoned, "in_review")
    told = [e for e in await company.operator.timeline(poisoned["case_id"]) if e["type"] == "message.requeued"]
    assert [e["actor"]["id"] for e in told] == ["operator-1"]
    left = await company.operator.get("/v1/outbox", parked="true")
    assert poisoned["case_id"] not in {each["case_id"] for each in left["messages"]}


async def blocked(company: Company, how_many: int) -> list[Json]:
    """Vendors whose account the bank refused to verify."""
    cases = [await company.draft("bulk") for _ in range(how_many)]
    await company.fault(partner="bank", call="verify_account", mode="reject")
    for case in cases:
        await company.insist(lambda key, case=case: company.requester.take(case, "submit", key=key))
    for case in cases:
        await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE)
    await company.clear_faults()
    return cases


@pytest.mark.parametrize("killed_at", [None, "bulk.before_commit:4", "bulk.sent:3"])
async def test_a_group_is_released_whoever_dies_meanwhile(company: Company, killed_at: str | None, report):
    cases, rate = await blocked(company, 10), 4
    groups = (await company.operator.get("/v1/bulk/groups", process="vendor_onboarding"))["groups"]
    group = next(each for each in groups if each["step"] == "verify_account")
    assert group["count"] == len(cases)
    if killed_at is not None:
        await company.stack.restart("worker", {"CASEWARD_FAILPOINT": killed_at})
    wanted = {name: group[name] for name in ("process", "step", "partner", "fingerprint")}
    order = {"override": "retry", "reason": "The bank is back", "group": wanted, "canary": 2, "rate": rate}
    run = await company.insist(lambda key: company.operator.post("/v1/bulk", order, key=key))
    if killed_at is not None:
        await company.stack.wait_ended("worker")
        await company.stack.start_service("worker")
    over = await until(
        lambda: company.operator.get(f"/v1/bulk/{run['bulk_id']}"), lambda seen: seen["finished_at"] is not None
    )
    assert (over["state"], over["counts"]["repaired"], over["total"]) == ("completed", len(cases), len(cases))
    arrived = []
    for case in cases:
        now = await company.settled(case, "in_review")
        operation = next(e for e in await company.operator.timeline(now["case_id"]) if e["actor"]["via"] == "bulk")
        step = next(
            e["effect_key"] for e in await company.operator.timeline(now["case_id"]) if e["type"] == "effect.blocked"
        )
        assert operation["operation_id"] is not None
        (happened,) = await company.ledger(key=step)
        arrived.append(datetime.fromisoformat(happened["at"]))
    assert most_in_a_second(sorted(arrived)) <= rate
    await report.of_kill("worker" if killed_at else "nobody", killed_at or "bulk", company, cases)
