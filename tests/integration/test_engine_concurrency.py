"""Many at once: the database decides who was first, and everybody else is told why not."""

import random

import pytest

from caseward.errors import ActionNotAllowed, BusinessKeyTaken, IdempotencyKeyReused
from processes.vendor_onboarding import VENDOR_ONBOARDING, Vendor
from tests.integration.desk import Begun, Desk, Handle, all_at_once
from tests.integration.parcels import CHIEF, CLERK, SENIOR, parcels, person, step

VENDOR = Vendor.model_validate(Vendor.model_config["json_schema_extra"]["examples"][0])
REQUESTER = person("vendor_requester")
RESULTS = {
    "check_tax_id": {"registered": True},
    "screen_sanctions": {"reference": "S1", "hits": 0},
    "verify_account": {"reference": "B1", "match": "full"},
}


async def in_review(database) -> Handle:
    case = await Desk(database, VENDOR_ONBOARDING, subject=lambda: VENDOR).open(REQUESTER)
    await case.take("submit", REQUESTER)
    for name, result in RESULTS.items():
        begun = await case.begin(name)
        assert isinstance(begun, Begun)
        await begun.settle("succeeded", result=result)
    assert (await case.finish("in_review")).state == "finished"
    return case


class TestDecisions:
    async def test_of_fifty_reviewers_at_once_one_decides(self, database):
        seed = random.randrange(2**32)
        print(f"seed {seed}")  # noqa: T201 - for the next time
        dice, case = random.Random(seed), await in_review(database)
        grounds = {"grounds": "Too many cooks."}
        choices = {"approve": {}, "reject": grounds, "request_changes": grounds}
        wanted = [dice.choice(sorted(choices)) for _ in range(50)]
        outcomes = await all_at_once(*(case.take(name, person("vendor_reviewer"), **choices[name]) for name in wanted))
        accepted = [name for name, outcome in zip(wanted, outcomes, strict=True) if not isinstance(outcome, Exception)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(accepted) == 1
        assert {type(outcome) for outcome in refused} == {ActionNotAllowed}
        codes = {reason.code for outcome in refused for reason in outcome.reasons}
        assert codes <= {"wrong_state", "operation_in_flight"}
        reached = {"approve": "activating", "reject": "rejected", "request_changes": "changes_requested"}
        assert (await case.row()).state == reached[accepted[0]]
        assert await case.chain_break() is None

    async def test_what_an_operator_and_a_requester_do_at_once_happens_in_some_order(self, database):
        case = await Desk(database, parcels(step("book"))).open()
        await case.take("ship")
        await case.run("book")
        outcomes = await all_at_once(
            case.override("undo"),
            case.take("cancel", CHIEF),
            case.override("force_cancel"),
            case.run("book"),
            case.finish(),
        )
        assert not [o for o in outcomes if isinstance(o, Exception) and not isinstance(o, ActionNotAllowed)]
        if (await case.row()).operation_id is not None:
            assert await case.work() == "finished"
        assert await case.chain_break() is None
        happened = [key.split(":", 1)[1] for key in case.desk.partner.happened]
        assert happened in (["book"], ["book", "book:undo"])
        assert len(set(happened)) == len(happened)

    async def test_fifty_retries_at_once_are_one_attempt(self, database):
        case = await Desk(database, parcels(step("book"))).open()
        await case.take("ship")
        await case.begin("book")
        outcomes = await all_at_once(*(case.run("book") for _ in range(20)))
        assert {type(outcome).__name__ for outcome in outcomes} == {"LeaseHeld"}
        assert len(await case.attempts("book")) == 1


class TestTwins:
    async def test_fifty_twins_of_a_command_are_one_operation(self, database):
        case = await Desk(database, parcels(step("book"))).open()
        outcomes = await all_at_once(*(case.take("ship", key="twins") for _ in range(50)))
        assert len({outcome.operation_id for outcome in outcomes}) == 1
        assert sorted(outcome.repeated for outcome in outcomes) == [False] + [True] * 49
        assert len(await case.messages()) == 2

    async def test_fifty_with_one_key_and_other_content_are_one_operation_and_refusals(self, database):
        case = await Desk(database, parcels(step("book"))).open()
        outcomes = await all_at_once(*(case.take("ship", key="reused", reason=f"Reason {n}") for n in range(50)))
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(refused) == 49
        assert {type(outcome) for outcome in refused} == {IdempotencyKeyReused}

    async def test_fifty_twins_open_one_case(self, database):
        desk = Desk(database, parcels(step("book")))
        outcomes = await all_at_once(*(desk.open(business_key="P-twins", key="opening") for _ in range(50)))
        assert len({case.id for case in outcomes}) == 1
        assert await outcomes[0].timeline() == ["case.opened"]

    async def test_of_fifty_with_one_business_key_one_opens(self, database):
        desk = Desk(database, parcels(step("book")))
        people = [CLERK if n % 2 else person("clerk") for n in range(50)]
        outcomes = await all_at_once(*(desk.open(someone, business_key="P-rivals") for someone in people))
        refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(refused) == 49
        assert {type(outcome) for outcome in refused} == {BusinessKeyTaken}

    async def test_fifty_twins_of_an_override_are_one_operation(self, database):
        case = await Desk(database, parcels(step("book"))).open()
        await case.take("ship")
        await case.run("book")
        outcomes = await all_at_once(*(case.override("undo", SENIOR, key="undo-twins") for _ in range(50)))
        assert len({outcome.operation_id for outcome in outcomes}) == 1
        assert (await case.row()).fence == 3

    @pytest.mark.parametrize("transition", ["fly", "take_back"])
    async def test_a_refused_key_is_free_for_everything(self, database, transition):
        case = await Desk(database, parcels(step("book"))).open()
        outcomes = await all_at_once(*(case.take(transition, key=f"free-{transition}") for _ in range(5)))
        assert {type(outcome) for outcome in outcomes} == {ActionNotAllowed}
        await case.take("ship", key=f"free-{transition}")
