"""Stories that take back what earlier operations left standing: once, the latest first, and nothing leads back."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from caseward.cases.taking_back import take_back
from caseward.db.tables import Case
from caseward.errors import ActionNotAllowed
from caseward.messages import TakeBackCall
from caseward.process import IMPOSSIBLE, UNDO, Deadline, Process, State, Transition
from tests.integration.desk import Desk, Handle, all_at_once
from tests.integration.parcels import AT_ONCE, OPERATOR, SENIOR, Correction, parcels, rejected, silent, step
from tests.integration.test_engine_replay import plan, replay

BOOK = step("book", owner="logistics")
LABEL = step("label", partner="stubborn", owner="warehouse")
REFUND = step("refund", owner="treasury", undo=IMPOSSIBLE)
SOON = timedelta(hours=1)


def redirected(*steps: Any, undoes: Any = (BOOK, LABEL), shipping: Any = (BOOK, LABEL)) -> Process:
    """Parcels that can be sent elsewhere: the new shipment first, then the end of the old one. Or they are recalled."""
    base = parcels(*shipping)
    away = State("redirecting", "Redirecting", "We are sending it elsewhere.", deadline=Deadline(after=SOON, then=UNDO))
    return replace(
        base,
        states=(*base.states, away, State("recalling", "Recalling", "We are calling it back.")),
        transitions=(
            *base.transitions,
            Transition(
                "redirect",
                "Send elsewhere",
                source=frozenset({"shipped"}),
                pending="redirecting",
                to="shipped",
                roles=frozenset({"clerk"}),
                steps=steps or (BOOK, LABEL),
                undoes=undoes,
                input=Correction,
                revise=lambda _parcel, correction: correction.parcel,
            ),
            Transition(
                "recall",
                "Call back",
                source=frozenset({"shipped", "redirecting"}),
                pending="recalling",
                to="draft",
                roles=frozenset({"clerk"}),
                undoes=undoes,
            ),
        ),
    )


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database, redirected())


async def shipped(desk: Desk) -> Handle:
    case = await desk.open()
    await case.take("ship")
    assert await case.work() == "finished"
    return case


async def redirecting(desk: Desk) -> Handle:
    """Shipped, accepted to be sent elsewhere, and nothing done yet."""
    case = await shipped(desk)
    await case.take("redirect", parcel={"to": "Bergen"})
    return case


async def old_one_begun(desk: Desk) -> Handle:
    """The new shipment stands, and the end of the old one is accepted."""
    case = await redirecting(desk)
    for each in ("book", "label"):
        assert (await case.run(each, effect_key=f"{(await case.operation()).id}:{each}")).state == "settled"
    assert [offset.step for offset in (await case.take_back()).offsets] == ["label", "book"]
    return case


def happened(case: Handle) -> list[str]:
    """What happened at the partner: each step with the place of its operation among all that did something."""
    keys = [key.split(":", 1) for key in case.desk.partner.happened]
    order = list(dict.fromkeys(operation for operation, _ in keys))
    return [f"{order.index(operation)}:{rest}" for operation, rest in keys]


SHIPPED = ["0:book", "0:label"]
REDIRECTED = [*SHIPPED, "1:book", "1:label", "0:label:undo", "0:book:undo"]


async def codes(attempt) -> list[str]:
    with pytest.raises(ActionNotAllowed) as refused:
        await attempt
    return [reason.code for reason in refused.value.reasons]


async def offered(case: Handle, name: str) -> bool:
    document = await case.document(SENIOR)
    return any(action.name == name and action.allowed for action in document.actions)


class TestTakingBack:
    async def test_comes_where_the_story_says_and_the_latest_goes_first(self, desk):
        case = await redirecting(desk)
        assert await case.work() == "finished"
        assert happened(case) == REDIRECTED
        assert (await case.row()).state == "shipped"
        assert (await case.effect("book")).standing

    async def test_of_a_story_that_does_nothing_else(self, desk):
        case = await shipped(desk)
        await case.take("recall")
        assert await case.work() == "finished"
        assert happened(case) == [*SHIPPED, "0:label:undo", "0:book:undo"]
        assert (await case.row()).state == "draft"

    async def test_of_nothing_is_done_at_once(self, database):
        case = await Desk(database, redirected()).open()
        async with case.desk.database.transaction() as session:
            (await session.get_one(Case, case.id)).state = "shipped"
        await case.take("recall")
        assert (await case.take_back()).offsets == []
        assert (await case.finish("draft")).state == "finished"
        assert case.desk.partner.happened == []

    async def test_takes_only_the_steps_it_names(self, desk):
        case = await shipped(desk)
        await case.take("recall")
        [offset] = (await case.take_back("label")).offsets
        await case.take_back_one(offset)
        assert happened(case) == [*SHIPPED, "0:label:undo"]
        [offset] = (await case.take_back("book")).offsets
        await case.take_back_one(offset)
        assert (await case.finish()).state == "finished"

    async def test_is_drawn_before_it_begins_and_belongs_to_whom_it_belongs_to(self, desk):
        case = await redirecting(desk)
        accepted = await case.operation()
        pending = [(s.name, s.direction, s.state, s.recovery_owner) for s in (await case.document()).operation.steps]
        assert pending == [
            ("book", "do", "pending", "logistics"),
            ("label", "do", "pending", "warehouse"),
            ("label:undo", "undo", "pending", "warehouse"),
            ("book:undo", "undo", "pending", "logistics"),
        ]
        shown = await case.operation_document(accepted.id)
        assert [(s.name, s.direction, s.state, s.recovery_owner) for s in shown.steps] == pending
        assert await case.work() == "finished"
        done = [(s.name, s.direction, s.state) for s in (await case.operation_document(accepted.id)).steps]
        assert done == [
            ("book", "do", "succeeded"),
            ("label", "do", "succeeded"),
            ("label:undo", "undo", "succeeded"),
            ("book:undo", "undo", "succeeded"),
        ]

    async def test_is_drawn_the_same_while_it_goes_on(self, desk):
        case = await old_one_begun(desk)
        await case.run("label:undo")
        states = {s.name: (s.direction, s.state) for s in (await case.document()).operation.steps}
        assert states == {
            "book": ("do", "succeeded"),
            "label": ("do", "succeeded"),
            "label:undo": ("undo", "succeeded"),
            "book:undo": ("undo", "pending"),
        }
        assert (await case.document()).condition == "undoing"

    async def test_stands_in_the_timeline(self, desk):
        case = await redirecting(desk)
        await case.work()
        entry = next(entry for entry in await case.entries() if entry.type == "operation.takes_back")
        assert entry.data == {"action": "Send elsewhere", "titles": "Label, Book"}
        assert await case.chain_break() is None

    async def test_a_second_time_takes_back_what_the_first_one_made(self, desk):
        case = await redirecting(desk)
        await case.work()
        await case.take("redirect", parcel={"to": "Narvik"})
        assert await case.work() == "finished"
        assert happened(case)[-4:] == ["2:book", "2:label", "1:label:undo", "1:book:undo"]
        assert len(case.desk.partner.happened) == len(set(case.desk.partner.happened))

    async def test_what_the_old_step_sent_is_what_its_compensation_takes_back(self, desk):
        case = await redirecting(desk)
        await case.work()
        released = {sent.key.split(":", 1)[1]: sent.content for sent in case.desk.partner.sent[-2:]}
        assert released == {"label:undo": {"number": "R2"}, "book:undo": {"number": "R1"}}


class TestAfterAKill:
    async def test_told_again_it_answers_what_is_left(self, desk):
        case = await old_one_begun(desk)
        assert [offset.step for offset in (await case.take_back()).offsets] == ["label", "book"]
        await case.run("label:undo")
        assert [offset.step for offset in (await case.take_back()).offsets] == ["book"]
        assert await case.work() == "finished"
        assert happened(case) == REDIRECTED

    async def test_a_run_that_knows_nothing_ends_what_was_begun(self, desk):
        case = await old_one_begun(desk)
        await case.run("label:undo")
        assert await case.work() == "finished"  # which loads, as a new run does
        assert happened(case) == REDIRECTED

    async def test_one_that_died_in_the_middle_of_a_repeatable_one_repeats_it(self, desk):
        case = await old_one_begun(desk)
        await case.run("label:undo")
        await case.begin("book:undo")
        await case.time_passes(timedelta(minutes=5))
        assert await case.work() == "finished"
        assert happened(case) == REDIRECTED

    async def test_one_that_died_in_the_middle_of_a_stubborn_one_asks_its_owner(self, desk):
        case = await old_one_begun(desk)
        await case.begin("label:undo")
        await case.time_passes(timedelta(minutes=5))
        assert await case.work() == "blocked"
        info = (await case.document()).condition_info
        assert (info.step, info.cause, info.recovery_owner) == ("label:undo", "unknown", "warehouse")

    async def test_twins_begin_it_once(self, desk):
        case = await redirecting(desk)
        operation = await case.operation()
        for each in ("book", "label"):
            await case.run(each, effect_key=f"{operation.id}:{each}")
        answers = await all_at_once(*(case.take_back() for _ in range(5)))
        assert {tuple(offset.step for offset in answer.offsets) for answer in answers} == {("label", "book")}
        assert (await case.timeline()).count("operation.takes_back") == 1
        assert await case.work() == "finished"
        assert happened(case) == REDIRECTED


class TestTrouble:
    async def test_a_refusal_blocks_for_its_owner_until_somebody_says_retry(self, desk):
        case = await old_one_begun(desk)
        case.desk.partner.next(rejected())
        assert await case.work() == "blocked"
        info = (await case.document()).condition_info
        assert (info.step, info.cause, info.recovery_owner) == ("label:undo", "rejected", "warehouse")
        await case.override("retry", step="label:undo")
        assert await case.work() == "finished"
        assert happened(case) == REDIRECTED

    async def test_left_out_by_a_senior_it_stays_standing_for_good(self, desk):
        case = await old_one_begun(desk)
        case.desk.partner.next(rejected())
        await case.work()
        assert await codes(case.override("skip", OPERATOR, step="label:undo")) == ["role_missing"]
        await case.override("skip", step="label:undo")
        assert await case.work() == "finished"
        assert happened(case) == [*SHIPPED, "1:book", "1:label", "0:book:undo"]
        await case.take("recall")
        assert [offset.step for offset in (await case.take_back()).offsets] == ["label", "book"]  # not the old label
        assert await case.work() == "finished"
        assert happened(case)[-2:] == ["1:label:undo", "1:book:undo"]

    async def test_of_which_nobody_knows_somebody_says_that_it_was_done(self, desk):
        case = await old_one_begun(desk)
        case.desk.partner.next(silent())
        assert await case.work() == "blocked"
        await case.override("mark_done", step="label:undo", result={})
        assert await case.work() == "finished"
        assert happened(case) == [*SHIPPED, "1:book", "1:label", "0:book:undo"]

    async def test_what_was_given_up_is_asked_about_first(self, database):
        book = replace(BOOK, partner="askable", exhausted="proceed", retry=AT_ONCE)
        case = await Desk(database, redirected(LABEL, undoes=(book,), shipping=(book, LABEL))).open()
        await case.take("ship")
        case.desk.partner.next(silent())
        assert await case.work() == "finished"
        await case.take("recall")
        case.desk.partner.lands((await case.effect("book")).key)
        [offset] = (await case.take_back()).offsets
        assert (offset.step, offset.settled) == ("book", False)
        await case.time_passes(SOON)
        assert await case.work() == "finished"
        assert case.desk.partner.asked == [offset.effect_key]
        assert case.desk.partner.happened[-1] == f"{offset.effect_key}:undo"

    async def test_a_story_that_leaves_something_standing_is_not_completed(self, desk):
        case = await shipped(desk)
        await case.take("recall")
        [offset] = (await case.take_back("label")).offsets
        await case.take_back_one(offset)
        assert (await case.finish()).state == "blocked"
        assert "the story left book standing" in str((await case.operation()).blocked)


class TestNoWayBack:
    async def test_before_it_begins_the_operation_can_be_undone(self, desk):
        case = await redirecting(desk)
        operation = await case.operation()
        for each in ("book", "label"):
            await case.run(each, effect_key=f"{operation.id}:{each}")
        assert await offered(case, "undo")
        await case.override("undo")
        assert await case.work() == "finished"
        assert happened(case) == [*SHIPPED, "1:book", "1:label", "1:label:undo", "1:book:undo"]
        row = await case.row()
        assert (row.state, row.title) == ("shipped", "Parcel to Oslo")
        await case.take("recall")  # the old shipment stands, and can be called back
        assert await case.work() == "finished"
        assert happened(case)[-2:] == ["0:label:undo", "0:book:undo"]

    async def test_once_it_has_begun_the_operation_cannot_be_undone(self, desk):
        case = await old_one_begun(desk)
        assert not await offered(case, "undo")
        assert await codes(case.override("undo")) == ["undo_impossible"]
        await case.work()
        assert not await offered(case, "undo")
        assert await codes(case.override("undo")) == ["undo_impossible"]

    async def test_nor_does_its_deadline_undo_it_then(self, desk):
        case = await old_one_begun(desk)
        await case.time_passes(2 * SOON)
        await case.pass_deadline()
        document = await case.document()
        assert (document.state, document.condition_info.cause) == ("redirecting", "deadline")
        assert await case.work() == "finished"
        assert happened(case) == REDIRECTED

    async def test_nor_does_a_step_without_attempts_left(self, database):
        last = step("hand_over", exhausted="undo", retry=AT_ONCE)
        case = await Desk(database, redirected(BOOK, last)).open()
        await case.take("ship")
        await case.work()
        await case.take("redirect", parcel={"to": "Bergen"})
        operation = await case.operation()
        await case.run("book", effect_key=f"{operation.id}:book")
        await case.take_back()
        case.desk.partner.next(rejected())
        assert (await case.run("hand_over", effect_key=f"{operation.id}:hand_over")).state == "blocked"
        assert (await case.operation()).id == operation.id

    async def test_it_is_the_same_for_whatever_supersedes_it(self, desk):
        case = await old_one_begun(desk)
        await case.run("label:undo")
        await case.take("recall")
        assert await codes(case.override("undo")) == ["undo_impossible"]
        assert await case.work() == "finished"
        assert sorted(happened(case)) == sorted([*REDIRECTED, "1:label:undo", "1:book:undo"])
        assert await codes(case.override("undo")) == ["undo_impossible"]

    async def test_superseded_before_it_began_the_old_ones_are_taken_back_by_the_new_story(self, desk):
        case = await redirecting(desk)
        operation = await case.operation()
        await case.run("book", effect_key=f"{operation.id}:book")
        await case.take("recall")
        assert await case.work() == "finished"
        assert happened(case) == [*SHIPPED, "1:book", "1:book:undo", "0:label:undo", "0:book:undo"]

    async def test_a_worker_that_comes_too_late_takes_nothing_back(self, desk):
        case = await redirecting(desk)
        late = await case.operation()
        await case.take("recall")
        stale = TakeBackCall("parcel", str(case.id), str(late.id), late.fence, ["book", "label"])
        async with case.desk.database.transaction() as session:
            answer = await take_back(session, case.desk.catalogue, stale)
        assert (answer.state, answer.offsets) == ("superseded", [])

    async def test_force_cancel_takes_all_back_once(self, desk):
        case = await old_one_begun(desk)
        await case.run("label:undo")
        await case.override("force_cancel")
        assert await case.work() == "finished"
        assert sorted(happened(case)) == sorted([*REDIRECTED, "1:label:undo", "1:book:undo"])
        assert (await case.row()).state == "cancelled"


class TestReplay:
    async def test_does_not_take_back_what_it_goes_on_with(self, desk):
        case = await redirecting(desk)
        await case.work()
        await replay(case, "label")
        assert await case.work() == "finished"
        assert happened(case) == [*REDIRECTED, "1:label:undo", "2:label"]
        effects = await case.effects()
        assert effects["book"].standing
        assert await codes(case.override("undo")) == ["undo_impossible"]

    async def test_of_an_earlier_story_waits_for_what_is_in_flight(self, desk):
        case = await shipped(desk)
        await case.take("recall")
        assert not await offered(case, "replay")
        assert await codes(plan(case, "book")) == ["operation_in_flight"]
        assert (await case.operation()).name == "recall"

    async def test_in_the_middle_ends_what_was_begun(self, desk):
        case = await old_one_begun(desk)
        case.desk.partner.next(rejected())
        assert await case.work() == "blocked"
        await replay(case, "label")
        assert await codes(case.override("undo")) == ["undo_impossible"]
        assert await case.work() == "blocked"  # a compensation waits for its owner, whoever drives it
        await case.override("retry", step="label:undo")
        assert await case.work() == "finished"
        assert sorted(happened(case)) == sorted([*REDIRECTED, "1:label:undo", "2:label"])
