"""Payment review over HTTP: who decides, by when, and where the money is at the end. The ledger is the referee."""

from uuid import UUID, uuid4

import pytest

from cli.client import Client, Refused
from processes.payment_review import ANSWER_WITHIN, REVIEW_WITHIN
from tests.faults.company import PATIENCE, Company, Json, acting
from tests.faults.days import time_passes
from tests.processes.payment_review import GROUNDS, PLAYBOOK, payment

SLOW = 4.0  # seconds; the gateway gives the bank 5
LARGE = 1_500_000
MINE = "/v1/cases/{}/claim"


async def flagged(company: Company, payee: str = "", minor_units: int = 480000) -> Json:
    """A payment, as its service sends it."""
    key = f"PR-{uuid4().hex[:10]}"
    service = company.people[PLAYBOOK.name]["service"]
    return await service.open(PLAYBOOK.name, key, payment(key, payee, minor_units))


async def in_review(company: Company, minor_units: int = 480000) -> Json:
    return await company.settled(await flagged(company, minor_units=minor_units), "in_review")


async def happened(company: Company, case: Json) -> list[str]:
    """What the partners did for this case, in order."""
    operations = {entry["operation_id"] for entry in await company.operator.timeline(case["case_id"])}
    done = await company.ledger()
    return [each["call"] for each in done if each["key"].partition(":")[0] in operations]


async def code_of(work) -> str:
    with pytest.raises(Refused) as refused:
        await work
    return refused.value.code


@pytest.fixture
def reviewer(company: Company) -> Client:
    return company.people[PLAYBOOK.name]["reviewer"]


@pytest.fixture
def senior(company: Company) -> Client:
    return company.people[PLAYBOOK.name]["senior"]


class TestALife:
    async def test_a_harmless_payment_is_released_without_anybody(self, company: Company):
        case = await company.settled(await flagged(company, "Well known "), "released")
        assert await happened(company, case) == ["score", "release_funds"]
        assert {entry["actor"]["id"] for entry in await company.operator.timeline(case["case_id"])} == {
            "service-1",
            "system",
        }

    async def test_a_large_one_is_not_however_harmless(self, company: Company):
        case = await company.settled(await flagged(company, "Well known ", LARGE), "in_review")
        assert await happened(company, case) == ["score"]

    async def test_a_risky_one_waits_for_a_reviewer_who_lets_it_go(self, company: Company, reviewer: Client):
        case = await in_review(company)
        assert (case["condition"], case["condition_info"]["waiting_on"]) == ("waiting", "payment_reviewer")
        await reviewer.take(case, "approve")
        case = await company.settled(case, "released")
        assert await happened(company, case) == ["score", "release_funds"]

    async def test_or_sends_it_back(self, company: Company, reviewer: Client):
        case = await in_review(company)
        await reviewer.take(case, "reject", GROUNDS)
        case = await company.settled(case, "returned")
        assert await happened(company, case) == ["score", "return_funds", "file", "send"]

    async def test_the_sender_is_asked_and_answers(self, company: Company, reviewer: Client):
        case = await in_review(company)
        await reviewer.take(case, "request_information", {"question": "Which goods is it for?"})
        desk = company.people[PLAYBOOK.name]["desk"]
        waiting = await desk.case(case["case_id"])
        assert (waiting["state"], waiting["condition_info"]["waiting_on"]) == ("awaiting_information", "customer_desk")
        await desk.take(waiting, "provide_information", {"information": "Two nets and a winch."})
        seen = await reviewer.case(case["case_id"])
        assert (seen["state"], seen["subject"]["information"]) == ("in_review", ["Two nets and a winch."])

    async def test_an_answer_that_never_comes_is_not_waited_for(self, company: Company, reviewer: Client):
        case = await in_review(company)
        await reviewer.take(case, "request_information", {"question": "Which goods is it for?"})
        await time_passes(company.database, UUID(case["case_id"]), ANSWER_WITHIN)
        case = await company.settled(case, "in_review")
        told = await company.operator.timeline(case["case_id"])
        assert [e["type"] for e in told][-3:] == ["deadline.passed", "operation.accepted", "operation.completed"]


class TestTheQueue:
    async def test_who_claims_a_payment_decides_on_it(self, company: Company, reviewer: Client, senior: Client):
        case = await in_review(company)
        await reviewer.post(MINE.format(case["case_id"]), {})
        seen = await senior.case(case["case_id"])
        assert seen["assignee"] == "reviewer-1"
        assert await code_of(senior.take(case, "approve")) == "claimed_by_other"
        mine = await reviewer.get("/v1/cases", assignee="reviewer-1", process=PLAYBOOK.name)
        assert case["case_id"] in {row["case_id"] for row in mine["cases"]}
        await reviewer.take(case, "approve")
        case = await company.settled(case, "released")
        assert case["assignee"] is None

    async def test_after_four_hours_a_senior_takes_it_over(self, company: Company, reviewer: Client, senior: Client):
        case = await in_review(company)
        await reviewer.post(MINE.format(case["case_id"]), {})
        await time_passes(company.database, UUID(case["case_id"]), REVIEW_WITHIN)
        late = await senior.until(
            case["case_id"],
            lambda now: now["condition_info"]["waiting_on"] == "senior_reviewer",
            within=PATIENCE,
        )
        assert late["assignee"] == "reviewer-1"
        await senior.post(f"/v1/cases/{case['case_id']}/unclaim", {"reason": "Gone home"})
        await senior.post(MINE.format(case["case_id"]), {})
        assert await code_of(reviewer.take(case, "approve")) == "claimed_by_other"
        await senior.take(case, "approve")
        await company.settled(case, "released")

    async def test_a_large_payment_takes_two(self, company: Company, reviewer: Client, senior: Client):
        case = await in_review(company, LARGE)
        await reviewer.post(MINE.format(case["case_id"]), {})
        proposed = await reviewer.take(case, "approve")
        assert (proposed["state"], proposed["confirmations"]["needed"]) == ("proposed", 1)
        confirm = f"/v1/operations/{proposed['operation_id']}/confirm"
        assert await code_of(reviewer.post(confirm, {})) == "four_eyes"
        assert "release_funds" not in await happened(company, case)
        await senior.post(confirm, {})
        case = await company.settled(case, "released")
        assert await happened(company, case) == ["score", "release_funds"]


class TestMoneyGoesOutOnce:
    async def test_a_reject_while_the_bank_releases_has_the_release_recalled(self, company: Company, reviewer: Client):
        case = await in_review(company)
        match = case["business_key"]
        await company.fault(partner="bank", call="release_funds", mode="slow", times=1, seconds=SLOW, match=match)
        await reviewer.take(case, "approve")
        now = await reviewer.until(case["case_id"], acting("release_funds"), within=PATIENCE)
        await reviewer.take(now, "reject", GROUNDS)
        case = await company.settled(case, "returned")
        assert await happened(company, case) == ["score", "release_funds", "recall", "return_funds", "file", "send"]

    @pytest.mark.parametrize("decided", ["approve", "reject"])
    async def test_a_dispute_gets_the_money_back_before_anybody_decides_anew(
        self, company: Company, reviewer: Client, senior: Client, decided: str
    ):
        case = await company.brought_to(PLAYBOOK, PLAYBOOK.ends(decided))
        await senior.take(case, "reopen", GROUNDS)
        case = await company.settled(case, "in_review")
        await company.take(PLAYBOOK, case, {"approve": "reject", "reject": "approve"}[decided])
        case = await company.settled(case, {"approve": "returned", "reject": "released"}[decided])
        money = [call for call in await happened(company, case) if call in {"release_funds", "return_funds", "recall"}]
        first, last = ("release_funds", "return_funds") if decided == "approve" else ("return_funds", "release_funds")
        assert money == [first, "recall", last]

    async def test_where_the_payee_keeps_it_the_sender_gets_nothing(
        self, company: Company, reviewer: Client, senior: Client
    ):
        """Treasury gives up, a reviewer agrees; then a reject is blocked, and only the truth is left to say."""
        case = await company.brought_to(PLAYBOOK, "released")
        await company.fault(partner="bank", call="recall", mode="reject", times=1)
        await senior.take(case, "reopen", GROUNDS)
        blocked = await company.operator.until(
            case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE
        )
        info = blocked["condition_info"]
        assert (info["step"], info["recovery_owner"]) == ("release_funds:undo", "treasury")
        left = await company.operator.override(blocked, "skip", reason="The account is empty", step=info["step"])
        await senior.post(f"/v1/operations/{left['operation_id']}/confirm", {})
        case = await company.settled(case, "in_review")
        await reviewer.take(case, "reject", GROUNDS)
        blocked = await company.operator.until(
            case["case_id"], lambda now: now["condition"] == "blocked", within=PATIENCE
        )
        info = blocked["condition_info"]
        assert (info["step"], info["recovery_owner"], info["last_error"]["code"]) == (
            "return_funds",
            "treasury",
            "money_is_out",
        )
        await company.operator.override(blocked, "undo", reason="It stays with the payee")
        case = await company.settled(case, "in_review")
        await reviewer.take(case, "approve")
        case = await company.settled(case, "released")
        assert await happened(company, case) == ["score", "release_funds"]

    async def test_everything_still_adds_up(self, company: Company):
        assert await company.violations() == []
