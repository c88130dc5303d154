"""A case is taken over while something acts, and the worker dies or freezes at that moment."""

import asyncio

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from caseward.messages import workflow_id
from tests.faults.company import PATIENCE, Company, acting
from tests.faults.scenarios import MOMENTS


class TestATakeoverOfAnUndo:
    @pytest.mark.parametrize("worker", ["is killed", "is frozen"])
    async def test_while_its_compensation_acts_comes_to_its_end(self, company: Company, worker: str, report):
        cases = []
        for _ in range(MOMENTS):
            case = await taken_over_while_it_undoes(company)
            cases.append(case)
            if await cancel_was_asked(company, case):
                break
        else:
            pytest.fail(f"{MOMENTS} cases had taken it back before the takeover was heard of")
        if worker == "is killed":
            await company.stack.kill("worker")
            await company.stack.start_service("worker")
        else:
            with company.frozen_worker():
                await asyncio.sleep(8)  # longer than Temporal waits for a heartbeat
        closed = await company.operator.until(
            case["case_id"], lambda now: now["state"] == "cancelled" and now["operation"] is None, within=PATIENCE
        )
        assert closed["condition"] == "done"
        await report.of_kill("worker", f"undo taken over, {worker}", company, cases)


class TestATakeoverOfAStepThatNeedsNoUndo:
    async def test_keeps_what_its_attempt_did(self, company: Company, report):
        case = await company.in_review()
        await company.fault(
            partner="mail", call="send", mode="slow", times=1, seconds=8, match=case["business_key"]
        )  # beyond our deadline
        approval = await company.approve(case)
        await company.operator.until(case["case_id"], acting("send_welcome"))
        await company.operator.override(case, "undo", reason="The wrong vendor", send={"wait": 30})
        await company.settled(case, "in_review")
        steps = (await company.operator.operation(approval["operation_id"]))["steps"]
        mailed = next(step for step in steps if step["name"] == "send_welcome")
        assert (mailed["state"], mailed["outcome"]) == ("voided", "unknown")
        await report.of_kill("nobody", "step without undo taken over", company, [case])


async def taken_over_while_it_undoes(company: Company) -> dict:
    case = await company.in_review()
    await company.fault(partner="mail", call="send", mode="reject", times=1, match=case["business_key"])
    approval = await company.approve(case)
    await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked")
    key = f"{approval['operation_id']}:open_payee:undo"
    await company.fault(partner="bank", call="close_payee", mode="slow", times=1, seconds=4, key=key)
    await company.operator.override(case, "undo", reason="The wrong vendor")
    at_it = acting("open_payee:undo")
    await company.operator.until(case["case_id"], lambda now: at_it(now) or now["operation"] is None)
    await company.operator.override(case, "force_cancel", reason="The vendor is insolvent")
    return case


async def cancel_was_asked(company: Company, case: dict) -> bool:
    """Wait until the workflow has heard of the takeover and told the activity; False where that was over before."""
    temporal = await Client.connect(company.stack.temporal_address, namespace="caseward")
    handle = temporal.get_workflow_handle(workflow_id("vendor_onboarding", case["case_id"]))
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            events = (await handle.fetch_history()).events
            if any(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED for event in events):
                return True
            if (await company.operator.case(case["case_id"]))["operation"] is None:
                return False
