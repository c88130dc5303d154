"""A finished story is told again from one of its steps, over HTTP, and only as its plan says."""

import pytest

from cli.client import Refused
from tests.faults.company import PATIENCE, Company


async def plan(company: Company, case: dict, step: str) -> dict:
    return await company.operator.post(f"/v1/cases/{case['case_id']}/plan", {"step": step})


async def active(company: Company) -> dict:
    case = await company.in_review()
    await company.approve(case)
    return await company.settled(case, "active")


class TestAnActiveVendor:
    async def test_gets_a_new_payee_and_keeps_its_number_in_the_erp(self, company: Company):
        case = await active(company)
        planned = await plan(company, case, "open_payee")
        assert [(each["action"], each["step"]) for each in planned["steps"]] == [
            ("offset", "open_payee:undo"),
            ("reuse", "create_in_erp"),
            ("run", "open_payee"),
            ("run", "send_welcome"),
        ]
        accepted = await company.operator.override(
            case, "replay", reason="The bank lost the payee", step="open_payee", plan_hash=planned["plan_hash"]
        )
        await company.operator.until(
            case["case_id"], lambda now: now["state"] == "active" and now["operation"] is None, within=PATIENCE
        )
        keys = {e["effect_key"] for e in await company.operator.timeline(case["case_id"]) if e["effect_key"]}
        done = [entry["key"] for entry in await company.ledger() if entry["key"] in keys]
        assert len(done) == len(set(done))
        assert sum(key.endswith("open_payee") for key in done) == 2
        assert sum(key.endswith("open_payee:undo") for key in done) == 1
        assert sum(key.endswith("create_in_erp") for key in done) == 1
        operation = await company.operator.operation(accepted["operation_id"])
        assert (operation["state"], operation["plan"]["from_step"]) == ("completed", "open_payee")

    async def test_is_screened_again_and_stays_approved(self, company: Company):
        case = await active(company)
        planned = await plan(company, case, "screen_sanctions")
        assert [(each["name"], each["kept"]) for each in planned["decisions"]] == [("submit", True), ("approve", True)]
        await company.operator.override(
            case, "replay", reason="New sanctions list", step="screen_sanctions", plan_hash=planned["plan_hash"]
        )
        now = await company.operator.until(
            case["case_id"], lambda doc: doc["operation"] is None and doc["version"] > case["version"], within=PATIENCE
        )
        assert now["state"] == "active"

    async def test_is_not_replayed_by_a_plan_that_is_out_of_date(self, company: Company):
        case = await active(company)
        planned = await plan(company, case, "open_payee")
        await company.reviewer.take(case, "suspend", {"grounds": "Under investigation"})
        await company.settled(case, "suspended")
        with pytest.raises(Refused) as refused:
            await company.operator.override(
                case, "replay", reason="Too late", step="open_payee", plan_hash=planned["plan_hash"]
            )
        assert (refused.value.status, refused.value.code) == (409, "replay_entangled")
