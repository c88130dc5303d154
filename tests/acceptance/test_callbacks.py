"""Partners that finish later, on the whole stack: the sandbox acknowledges, does it, and calls back, signed."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.company import PATIENCE, Company
from tests.faults.scenarios import step_states
from tests.processes.booking import PLAYBOOK as BOOKING

Json = dict[str, Any]
GROUNDS = {"grounds": "Invoices for work that was never done"}
CHECKS = ("check_tax_id", "screen_sanctions", "verify_account")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def healthy(company: Company):
    """Whatever a test leaves behind, the next one finds partners that behave and an API that runs."""
    yield
    await company.clear_faults()
    if not company.stack.children["api"].running:
        await company.stack.start_service("api")


async def steps(company: Company, operation: Json) -> dict[str, Json]:
    shown = await company.operator.operation(operation["operation_id"])
    return {step["name"]: step for step in shown["steps"]}


async def called_back(company: Company, case: Json) -> list[Json]:
    """What the timeline has of callbacks."""
    entries = await company.operator.timeline(case["case_id"])
    return [entry for entry in entries if entry["type"] == "effect.called_back"]


async def delivered(company: Company, key: str) -> Json:
    """The sandbox's news of one key, once it owes nothing more."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            events = (await company.sandbox.get("/_control/callbacks")).raise_for_status().json()
            for event in events:
                if event["body"]["key"] == key and event["state"] == "delivered":
                    return event
            await asyncio.sleep(0.1)


class TestEveryStepOfVendorOnboarding:
    async def test_survives_partners_that_all_finish_later(self, company: Company):
        """From submission to an undone approval, every partner that may only acknowledges at first."""
        await company.fault(partner="*", call="*", mode="acknowledge", times=None, seconds=0.3)
        case = await company.draft()
        submit = await company.requester.take(case, "submit")
        await company.settled(case, "in_review")
        approve = await company.approve(case)
        await company.settled(case, "active")
        suspend = await company.reviewer.take(await company.reviewer.case(case["case_id"]), "suspend", GROUNDS)
        await company.settled(case, "suspended")
        reinstate = await company.lead.take(case, "reinstate")
        await company.settled(case, "active")
        undo = await company.operator.override(case, "undo", reason="The wrong vendor")
        await company.settled(case, "suspended")
        await company.clear_faults()

        expected = {
            submit["operation_id"]: CHECKS,
            approve["operation_id"]: ("create_in_erp", "open_payee"),  # a mail server answers at once
            suspend["operation_id"]: ("block_in_erp", "suspend_payee"),
            reinstate["operation_id"]: ("resume_payee", "unblock_in_erp"),
            undo["operation_id"]: ("unblock_in_erp:undo", "resume_payee:undo"),
        }
        for operation_id, names in expected.items():
            found = await steps(company, {"operation_id": operation_id})
            for name in names:
                step = found[name]
                assert [attempt["outcome"] for attempt in step["attempts"]] == ["acknowledged"], name
                assert step["state"] in {"succeeded", "undone"}, name
                assert len(await company.ledger(key=step["effect_key"])) == 1, name
        assert len(await called_back(company, case)) == sum(len(names) for names in expected.values())


class TestOneThatCallsBack:
    async def test_twice_is_heard_once(self, company: Company):
        case = await company.in_review()
        await company.fault(partner="bank", call="open_payee", mode="callback_twice", times=1, seconds=0.3)
        approval = await company.approve(case)
        await company.settled(case, "active")
        key = f"{approval['operation_id']}:open_payee"
        assert (await delivered(company, key))["attempts"] >= 2
        assert len(await called_back(company, case)) == 1
        assert len(await company.ledger(key=key)) == 1

    async def test_that_it_did_not_do_it_after_all_blocks_for_the_owner_who_tries_again(self, company: Company):
        case = await company.in_review()
        await company.fault(
            partner="bank", call="open_payee", mode="acknowledge", times=1, seconds=0.3, outcome="failed"
        )
        approval = await company.approve(case)
        blocked = await company.operator.until(case["case_id"], lambda now: now["condition"] == "blocked")
        info = blocked["condition_info"]
        assert (info["cause"], info["recovery_owner"]) == ("rejected", "treasury")
        assert info["last_error"]["code"] == "account_closed"
        await company.operator.override(blocked, "retry", reason="The account is open again", step="open_payee")
        await company.settled(case, "active")
        outcomes = [a["outcome"] for a in (await steps(company, approval))["open_payee"]["attempts"]]
        assert outcomes == ["acknowledged", "succeeded"]

    async def test_never_is_asked_where_it_can_be(self, company: Company):
        case = await company.in_review()
        await company.fault(partner="bank", call="open_payee", mode="callback_never", times=1, seconds=0.3)
        approval = await company.approve(case)
        waiting = await company.operator.until(case["case_id"], lambda now: now["condition"] == "waiting")
        assert waiting["condition_info"]["waiting_on"] == "bank"
        await company.settled(case, "active")
        outcomes = [a["outcome"] for a in (await steps(company, approval))["open_payee"]["attempts"]]
        assert outcomes == ["acknowledged", "succeeded"]
        assert await called_back(company, case) == []

    async def test_while_the_api_is_down_calls_again(self, company: Company):
        case = await company.opened(BOOKING)
        await company.fault(partner="vouchers", call="issue", mode="acknowledge", times=1, seconds=5)
        asked = await company.take(BOOKING, case, "request")
        key = f"{asked['operation_id']}:issue_voucher"
        await company.operator.until(
            case["case_id"], lambda now: step_states(now).get("issue_voucher") == "waiting", within=PATIENCE
        )
        await company.stack.stop_service("api")
        async with asyncio.timeout(120):
            while not await company.ledger(key=key):  # it has done it, and nobody listens
                await asyncio.sleep(0.05)
        await company.stack.start_service("api")
        await company.settled(case, "confirmed")
        assert (await delivered(company, key))["attempts"] >= 1
        assert len(await called_back(company, case)) == 2, "the hotel's, and this one"

    @pytest.mark.parametrize("point", ["callback.before_commit", "callback.after_commit"])
    async def test_and_kills_the_api_at_it_is_heard_once(self, company: Company, point: str):
        case = await company.in_review()
        await company.stack.restart("api", {"CASEWARD_FAILPOINT": point})
        await company.fault(partner="bank", call="open_payee", mode="acknowledge", times=1, seconds=0.3)
        approval = await company.approve(case)
        await company.stack.wait_ended("api")
        await company.stack.start_service("api")
        await company.settled(case, "active")
        key = f"{approval['operation_id']}:open_payee"
        assert len(await company.ledger(key=key)) == 1
        await delivered(company, key)
        assert len(await called_back(company, case)) == 1


class TestALateOne:
    async def test_for_a_cancelled_approval_is_taken_back_by_the_system(self, company: Company):
        """An operator gave the payee up; the bank opens it after the case is closed."""
        case = await company.in_review()
        await company.fault(partner="bank", call="open_payee", mode="acknowledge", times=1, seconds=3600)
        approval = await company.approve(case)
        await company.operator.until(
            case["case_id"],
            lambda now: now["condition"] == "waiting" and now["condition_info"]["step"] == "open_payee",
            within=PATIENCE,
        )
        await company.operator.override(case, "force_cancel", reason="The vendor is insolvent")
        given_up = await company.operator.until(
            case["case_id"], lambda now: "open_payee" in {a["step"] for a in now["actions"] if a["name"] == "skip"}
        )
        await company.operator.override(given_up, "skip", reason="It will not be opened", step="open_payee")
        await company.operator.until(case["case_id"], lambda now: now["state"] == "cancelled", within=PATIENCE)
        key = f"{approval['operation_id']}:open_payee"
        await company.keep_promise(key)
        await delivered(company, key)
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while not await company.ledger(key=f"{key}:undo"):
                await asyncio.sleep(0.1)
        closed = await company.settled(case, "cancelled")
        assert closed["condition"] == "done"
        entries = await company.operator.timeline(case["case_id"])
        accepted = next(e for e in entries if e["type"] == "operation.accepted" and e["actor"]["id"] == "system")
        assert accepted["reason"] == "An effect landed after it was given up."

    async def test_everything_still_adds_up(self, company: Company):
        assert await company.violations() == []
