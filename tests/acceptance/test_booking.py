"""Booking on the whole stack: over HTTP, with a hotel that calls back, and with everything that may cross."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from cli.client import Client, Refused
from processes.booking import HOLD_LASTS
from tests.acceptance.test_vendor_onboarding import anonymous, send, token
from tests.faults.company import PATIENCE, Company, Json, acting
from tests.faults.days import time_passes
from tests.processes.booking import PLAYBOOK

DEPOSIT = 12050
NEW_DAYS = PLAYBOOK.inputs["reschedule"]({})
SLOW = 4.0  # seconds that a partner takes where something has to happen meanwhile; the gateways give it 5


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def healthy(company: Company):
    yield
    await company.clear_faults()


@pytest.fixture
def agent(company: Company) -> Client:
    return company.people["booking"]["agent"]


async def confirmed(company: Company) -> Json:
    return await company.brought_to(PLAYBOOK, "confirmed")


async def happened(company: Company, case: Json) -> list[tuple[str, Json, Json]]:
    """All that the partners did for this case but mails, in order: the call, what was asked, what was answered."""
    keys = {
        step["effect_key"]
        for operation_id in await operations(company, case)
        for step in (await company.operator.operation(operation_id))["steps"]
    }
    done = await company.ledger()
    return [
        (entry["call"], entry["request"], entry["answer"])
        for entry in done
        if entry["key"] in keys and entry["partner"] != "mail"
    ]


async def operations(company: Company, case: Json) -> list[str]:
    entries = await company.operator.timeline(case["case_id"])
    return list(dict.fromkeys(entry["operation_id"] for entry in entries if entry["operation_id"]))


async def balance(company: Company, case: Json) -> tuple[Counter[str], int]:
    """What the guest still has, by kind, and how much of the deposit is still ours. Nothing is given back twice."""
    done = await happened(company, case)
    kinds = {"hold_room": "room", "hold_car": "car", "issue": "voucher", "authorise": "authorisation"}
    back = {"release_room": "room", "release_car": "car", "withdraw": "voucher", "void": "authorisation"}
    names = {"room": "hold", "car": "hold", "voucher": "voucher", "authorisation": "authorisation"}
    standing: Counter[str] = Counter()
    for kind in names:
        made = [answer[names[kind]] for call, _, answer in done if kinds.get(call) == kind]
        given = [answer[names[kind]] for call, _, answer in done if back.get(call) == kind]
        assert len(given) == len(set(given)), f"a {kind} was given back twice"
        assert set(given) <= set(made)
        standing[kind] = len(made) - len(given)
    taken = sum(asked["minor_units"] for call, asked, _ in done if call == "capture")
    refunded = sum(asked["minor_units"] for call, asked, _ in done if call == "refund")
    return +standing, taken - refunded


FIRM = Counter({"room": 1, "car": 1, "voucher": 1, "authorisation": 1})
NOTHING: Counter[str] = Counter()
SPENT = Counter({"authorisation": 1})  # what a capture used up is not voided


class TestTheBusiness:
    async def test_whoever_knows_only_the_document_walks_a_booking_from_draft_to_check_out(self, company: Company):
        document = await anonymous(company, "/openapi.json")
        agent, desk = token(company, "agent-9", "booking_agent"), token(company, "desk-9", "front_desk")
        key = f"BK-{uuid4().hex[:10]}"
        case_id = (await send(company, document, "booking_open", agent, replace={"business_key": key}))["case_id"]
        for operation, bearer, state in (
            ("booking_request", agent, "confirmed"),
            ("booking_reschedule", agent, "confirmed"),
            ("booking_check_in", desk, "checked_in"),
            ("booking_complete", desk, "completed"),
        ):
            await send(company, document, operation, bearer, case_id=case_id)
            await company.settled({"case_id": case_id}, state)
        case = await company.operator.case(case_id)
        assert (case["condition"], case["subject"]["arrival"]) == ("done", NEW_DAYS["arrival"])

    async def test_the_hotel_confirms_by_callback(self, company: Company):
        case = await confirmed(company)
        entries = await company.operator.timeline(case["case_id"])
        called = [entry for entry in entries if entry["type"] == "effect.called_back"]
        assert [entry["data"]["title"] for entry in called] == ["Hold the room"]
        assert await balance(company, case) == (FIRM, DEPOSIT)
        assert case["state_info"]["deadline_at"] == "2031-05-04T00:00:00Z"

    async def test_the_guest_is_mailed_what_is_booked_once_each_time(self, company: Company):
        case = await confirmed(company)
        await company.take(PLAYBOOK, case, "reschedule")
        await company.settled(case, "confirmed")
        mails = [entry["request"] for entry in await company.ledger(partner="mail")]
        first, second = [mail for mail in mails if case["business_key"] in mail["subject"]]
        assert (first["to"], "2031-05-03" in first["text"]) == ([case["subject"]["guest"]["email"]], True)
        assert NEW_DAYS["arrival"] in second["text"]
        vouchers = [answer["voucher"] for call, _, answer in await happened(company, case) if call == "issue"]
        assert [vouchers[0] in first["text"], vouchers[1] in second["text"]] == [True, True]

    async def test_a_mail_that_nobody_can_tell_about_holds_no_booking_up(self, company: Company):
        case = await company.opened(PLAYBOOK)
        await company.fault(partner="mail", call="send", mode="lose_reply", times=1, match=case["business_key"])
        asked = await company.take(PLAYBOOK, case, "request")
        await company.settled(case, "confirmed")
        steps = (await company.operator.operation(asked["operation_id"]))["steps"]
        letter = next(step for step in steps if step["name"] == "send_confirmation")
        assert (letter["state"], letter["outcome"]) == ("given_up", "unknown")

    async def test_new_days_are_held_before_the_old_ones_are_given_up(self, company: Company):
        case = await confirmed(company)
        done = await company.take(PLAYBOOK, case, "reschedule")
        case = await company.settled(case, "confirmed")
        calls = [call for call, _, _ in await happened(company, case)][-6:]
        assert set(calls[:2]) == {"hold_room", "hold_car"}
        assert calls[2:4] == ["issue", "withdraw"]
        assert set(calls[4:]) == {"release_room", "release_car"}
        assert await balance(company, case) == (FIRM, DEPOSIT)
        assert case["state_info"]["deadline_at"] == "2031-05-11T00:00:00Z"
        shown = await company.operator.operation(done["operation_id"])
        assert {step["name"] for step in shown["steps"] if step["direction"] == "undo"} == {
            "issue_voucher:undo",
            "hold_car:undo",
            "hold_room:undo",
        }
        with pytest.raises(Refused) as refused:
            await company.operator.override(case, "undo", reason="The old days after all")
        assert [reason["code"] for reason in refused.value.problem["reasons"]] == ["undo_impossible"]

    async def test_who_cancels_in_time_gets_all_back(self, company: Company):
        case = await confirmed(company)
        await company.take(PLAYBOOK, case, "cancel")
        case = await company.settled(case, "cancelled")
        assert await balance(company, case) == (SPENT, 0)

    async def test_a_guest_who_does_not_come_loses_the_deposit_and_the_room(self, company: Company):
        case = await confirmed(company)
        due = (await company.operator.case(case["case_id"]))["state_info"]["deadline_at"]
        assert due is not None
        await time_passes(company.database, UUID(case["case_id"]), timedelta(days=5000))
        case = await company.settled(case, "no_show")
        assert await balance(company, case) == (Counter({"voucher": 1, "authorisation": 1}), DEPOSIT)

    async def test_where_there_is_no_room_nothing_is_kept(self, company: Company, agent: Client):
        key = f"BK-{uuid4().hex[:10]}"
        case = await agent.open("booking", key, PLAYBOOK.subjects[1](key))
        await agent.take(case, "request")
        await company.operator.until(case["case_id"], lambda now: now["version"] > 4, within=PATIENCE)
        case = await company.settled(case, "draft")
        assert await balance(company, case) == (NOTHING, 0)


class TestWhatCrosses:
    async def test_a_hold_that_expires_while_the_deposit_is_being_taken(self, company: Company):
        case = await company.opened(PLAYBOOK)
        await company.fault(partner="bank", call="capture", mode="slow", times=1, seconds=SLOW, match=case["title"][:9])
        await company.take(PLAYBOOK, case, "request")
        await company.operator.until(case["case_id"], acting("capture_deposit"), within=PATIENCE)
        await time_passes(company.database, UUID(case["case_id"]), HOLD_LASTS)
        case = await company.settled(case, "draft")
        assert await balance(company, case) == (NOTHING, 0)
        assert "issue" not in {call for call, _, _ in await happened(company, case)}

    async def test_a_hotel_that_confirms_after_the_booking_was_cancelled(self, company: Company, agent: Client):
        case = await company.opened(PLAYBOOK)
        await company.fault(
            partner="hotel", call="hold_room", mode="acknowledge", times=1, seconds=2 * SLOW, match=case["title"][:9]
        )
        await company.take(PLAYBOOK, case, "request")
        now = await company.operator.until(
            case["case_id"], lambda now: now["condition"] == "waiting" and now["operation"], within=PATIENCE
        )
        await agent.take(now, "cancel")
        case = await company.settled(case, "cancelled")
        assert await balance(company, case) == (NOTHING, 0)
        assert [call for call, _, _ in await happened(company, case)].count("hold_room") == 1

    @pytest.mark.parametrize("first", ["cancel", "reschedule"])
    async def test_a_cancel_against_a_reschedule(self, company: Company, agent: Client, first: str):
        case = await confirmed(company)
        given = {"cancel": {}, "reschedule": NEW_DAYS}
        order = [first, *(name for name in given if name != first)]

        async def take(name: str) -> bool:
            try:
                await agent.take(case, name, given[name])
            except Refused as refused:
                assert refused.code in {"operation_in_flight", "wrong_state"}, refused  # noqa: PT017 - what must not be otherwise
                return False
            return True

        won = dict(zip(order, await asyncio.gather(*(take(name) for name in order)), strict=True))
        assert won["cancel"]  # also over a reschedule that is under way
        case = await company.settled(case, "cancelled")
        assert await balance(company, case) == (SPENT, 0)

    @pytest.mark.parametrize("step", ["hold_room", "issue_voucher", "issue_voucher:undo", "hold_car:undo"])
    async def test_a_cancel_in_the_middle_of_a_reschedule(self, company: Company, agent: Client, step: str):
        case = await confirmed(company)
        partner, call = PLAYBOOK.partner_of(step), PLAYBOOK.calls[step]
        await company.fault(partner=partner, call=call, mode="slow", times=1, seconds=SLOW)
        await company.take(PLAYBOOK, case, "reschedule")
        now = await company.operator.until(case["case_id"], acting(step), within=PATIENCE)
        await agent.take(now, "cancel")
        case = await company.settled(case, "cancelled")
        assert await balance(company, case) == (SPENT, 0)
        assert case["subject"]["arrival"] == "2031-05-03"  # the new days never were the case's own

    async def test_two_who_cancel_at_once(self, company: Company, agent: Client):
        case = await confirmed(company)
        outcomes = await asyncio.gather(*(agent.take(case, "cancel") for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
        case = await company.settled(case, "cancelled")
        assert await balance(company, case) == (SPENT, 0)

    async def test_two_who_undo_at_once(self, company: Company):
        case = await confirmed(company)
        undo = (company.operator.override(case, "undo", reason="A mistake") for _ in range(4))
        outcomes = await asyncio.gather(*undo, return_exceptions=True)
        assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
        case = await company.settled(case, "draft")
        assert await balance(company, case) == (NOTHING, 0)

    @pytest.mark.parametrize("step", ["hold_room:undo", "hold_car:undo", "issue_voucher:undo"])
    @pytest.mark.parametrize("mode", ["lose_reply", "lose_request", "error", "reject"])
    async def test_a_partner_that_misbehaves_when_the_old_days_are_given_up(
        self, company: Company, step: str, mode: str
    ):
        case = await confirmed(company)
        partner, call = PLAYBOOK.partner_of(step), PLAYBOOK.calls[step]
        await company.fault(partner=partner, call=call, mode=mode, times=1)
        await company.take(PLAYBOOK, case, "reschedule")
        if mode == "reject":
            blocked = await company.operator.until(
                case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE
            )
            assert blocked["condition_info"]["step"] == step
            assert blocked["condition_info"]["recovery_owner"] == "reservations"
            await company.operator.override(blocked, "retry", reason="They called", step=step)
        case = await company.settled(case, "confirmed")
        assert await balance(company, case) == (FIRM, DEPOSIT)

    async def test_everything_still_adds_up(self, company: Company):
        assert await company.violations() == []
