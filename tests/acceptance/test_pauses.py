"""Pauses on the whole stack: a partner that is away trips its own, and a person's holds up what they meant."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from caseward.cases.breaker import PROBES
from cli.client import Refused
from tests.faults.company import PATIENCE, Company

Json = dict[str, Any]
UNDER_WAY, LATER = 10, 5  # more than the breaker needs; and who comes when it has tripped


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def healthy(company: Company):
    """Whatever a test leaves behind, the next one finds partners that answer and nothing paused."""
    yield
    await company.clear_faults()
    for pause in (await company.operator.get("/v1/pauses"))["pauses"]:
        if pause["state"] in {"paused", "probing"}:
            await company.operator.post(pause["href"], {"reason": "The test is over", "rate": 1000})
        await until(company, pause["name"], lambda now: now["state"] == "open")


async def pause_of(company: Company, name: str) -> Json:
    return next(p for p in (await company.operator.get("/v1/pauses"))["pauses"] if p["name"] == name)


async def until(company: Company, name: str, wanted: Callable[[Json], bool]) -> Json:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not wanted(pause := await pause_of(company, name)):
            await asyncio.sleep(0.1)
    return pause


async def together(these: list[Awaitable[Json]]) -> list[Json]:
    return list(await asyncio.gather(*these))


async def pause(company: Company, **what: str) -> Json:
    return await company.operator.post("/v1/pauses", {"reason": "They are moving house", **what})


def is_paused(now: Json) -> bool:
    return now["condition"] == "paused"


async def test_a_partner_that_is_away_trips_its_breaker_and_nobody_has_to_do_anything(company: Company):
    cases = await together([company.in_review() for _ in range(UNDER_WAY + LATER)])
    before = await company.ledger(partner="bank")
    await company.fault(partner="bank", call="*", mode="down", times=None)
    approvals = await together([company.approve(case) for case in cases[:UNDER_WAY]])

    tripped = await until(company, "bank", lambda now: now["state"] == "paused")
    assert (tripped["scope"], tripped["by"]["id"]) == ("partner", "system")
    assert tripped["probe_at"] is not None
    approvals += await together([company.approve(case) for case in cases[UNDER_WAY:]])
    tried = 0
    for case in cases[UNDER_WAY:]:  # the others may have been heard: they go on asking, which a pause lets pass
        held = await company.operator.until(case["case_id"], is_paused, within=PATIENCE)
        info = held["condition_info"]
        assert (info["by"], info["step"], held["state"]) == ("system", "open_payee", "activating"), info
        assert info["reason"].startswith("The partner bank does not answer"), info
        assert info["recovery_owner"] == "operator", info
        tried += info["attempts"] > 0
    assert tried <= PROBES, "only as many as find out whether it is back"
    assert await company.ledger(partner="bank") == before

    await company.clear_faults()
    for case in cases:  # nobody decides anything here: `settled` would, over a blocked case
        await company.operator.until(case["case_id"], lambda now: now["state"] == "active", within=PATIENCE)
    await until(company, "bank", lambda now: now["state"] == "open")
    for approval in approvals:
        for name in ("create_in_erp", "open_payee", "send_welcome"):
            assert len(await company.ledger(key=f"{approval['operation_id']}:{name}")) == 1, name
    for number, case in enumerate(cases):
        entries = await company.operator.timeline(case["case_id"])
        people = {"requester-1", "reviewer-1", "system"}
        assert {entry["actor"]["id"] for entry in entries} <= people, "nobody recovered anything"
        assert number < UNDER_WAY or {"effect.paused", "effect.resumed"} <= {entry["type"] for entry in entries}
    assert await company.violations({case["case_id"] for case in cases}) == []


@pytest.mark.parametrize("deadlines", ["running", "frozen"])
async def test_a_person_pauses_a_partner_and_what_waits_goes_on_when_it_is_resumed(company: Company, deadlines: str):
    case = await company.in_review()
    paused = await pause(company, partner="bank", deadlines=deadlines)
    approval = await company.approve(case)
    held = await company.operator.until(case["case_id"], is_paused, within=PATIENCE)
    assert (held["condition_info"]["by"], held["condition_info"]["step"]) == ("operator-1", "open_payee")
    assert (await pause_of(company, "bank"))["cases_waiting"] == 1
    keys = {name: f"{approval['operation_id']}:{name}" for name in ("create_in_erp", "open_payee")}
    assert [len(await company.ledger(key=key)) for key in keys.values()] == [1, 0]  # only the bank is meant

    await company.operator.post(paused["href"], {"reason": "They are back"})
    await company.settled(case, "active")
    await until(company, "bank", lambda now: now["state"] == "open")
    assert len(await company.ledger(key=keys["open_payee"])) == 1
    told = {e["type"]: e for e in await company.operator.timeline(case["case_id"])}
    assert (told["effect.paused"]["reason"], told["effect.resumed"]["reason"]) == (
        "They are moving house",
        "They are back",
    )
    assert await company.violations({case["case_id"]}) == []


async def test_under_a_paused_process_nothing_begins_until_it_is_resumed(company: Company):
    case, under_way = await company.in_review(), await company.in_review()
    match = under_way["business_key"]
    await company.fault(partner="erp", call="create_vendor", mode="acknowledge", times=1, seconds=3600, match=match)
    approval = await company.approve(under_way)
    await company.operator.until(
        under_way["case_id"], lambda now: states_of(now).get("create_in_erp") == "waiting", within=PATIENCE
    )
    paused = await pause(company, process="vendor-onboarding")

    for refused in (company.reviewer.take(case, "approve"), company.draft()):
        with pytest.raises(Refused) as answer:
            await refused
        assert (answer.value.status, answer.value.code) == (409, "paused")
    await company.keep_promise(f"{approval['operation_id']}:create_in_erp")
    held = await company.operator.until(
        under_way["case_id"], lambda now: states_of(now).get("open_payee") == "paused", within=PATIENCE
    )
    assert states_of(held)["create_in_erp"] == "succeeded", "what was under way was taken in"
    assert held["condition"] == "paused"
    assert await company.ledger(key=f"{approval['operation_id']}:open_payee") == []

    await company.operator.post(paused["href"], {"reason": "They are back"})
    await company.settled(under_way, "active")
    await company.approve(case)
    await company.settled(case, "active")
    assert await company.violations({case["case_id"], under_way["case_id"]}) == []


def states_of(now: Json) -> dict[str, str]:
    return {step["name"]: step["state"] for step in (now["operation"] or {"steps": []})["steps"]}
