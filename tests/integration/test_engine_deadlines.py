"""Deadlines, of states at rest and pending, and of steps: what follows, who wins, and how people get out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from caseward.errors import ActionNotAllowed
from caseward.process import BLOCK, IMPOSSIBLE, UNDO, Block, Deadline, Escalate, Process, Take
from tests.integration.desk import Begun, Desk, Handle, all_at_once
from tests.integration.parcels import (
    BOOK,
    CHIEF,
    CLERK,
    LABEL,
    OPERATOR,
    SENIOR,
    acknowledged,
    parcels,
    person,
    rejected,
    step,
)

THREE_WEEKS, A_MONTH = timedelta(weeks=3), timedelta(days=30)
PATIENT_LABEL = replace(LABEL, answer_within=timedelta(days=90))


def within(after: timedelta, then: Any, *steps: Any, state: str = "shipping") -> Process:
    """Parcels of which one state has this deadline."""
    process = parcels(*(steps or (BOOK, PATIENT_LABEL)))
    deadline = Deadline(after=after, then=then)
    states = tuple(replace(each, deadline=deadline) if each.name == state else each for each in process.states)
    return replace(process, states=states)


async def waiting_for_weeks(database, then: Any, *steps: Any) -> Handle:
    """The first step is done; the second's partner said "later", and a month has passed."""
    case = await Desk(database, within(THREE_WEEKS, then, *steps)).open()
    await case.take("ship")
    case.desk.partner.next(None, acknowledged())
    assert await case.work() == "waiting"
    await case.time_passes(A_MONTH)
    return case


async def offered(case: Handle, name: str, actor=OPERATOR) -> bool:
    document = await case.document(actor)
    return any(action.name == name and action.allowed for action in document.actions)


class TestOfAPendingState:
    async def test_undoes_what_the_partner_has_not_finished_in_weeks(self, database):
        case = await waiting_for_weeks(database, UNDO)
        shipping = await case.operation()
        await case.pass_deadline()
        undo = await case.operation()
        assert (undo.name, undo.actor_id, undo.acts_on) == ("undo", "system", shipping.id)
        assert (await case.document()).condition == "undoing"
        assert (await case.timeline())[-3:] == ["deadline.passed", "operation.undoing", "operation.accepted"]
        case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        standing = [address for address, effect in (await case.effects()).items() if effect.standing]
        assert [address for address in standing if not address.endswith(":undo")] == []

    async def test_takes_a_transition_that_supersedes(self, database):
        case = await waiting_for_weeks(database, Take("cancel"))
        shipping = await case.operation()
        await case.pass_deadline()
        assert (await case.operation(shipping.id)).state == "superseded"
        assert (await case.row()).state == "cancelling"
        case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
        assert await case.work() == "finished"
        assert (await case.row()).state == "cancelled"

    async def test_names_the_role_it_escalates_to_while_the_work_goes_on(self, database):
        case = await waiting_for_weeks(database, Escalate("chief"))
        await case.pass_deadline()
        document = await case.document()
        assert (document.condition, document.condition_info.waiting_on) == ("waiting", "chief")
        assert "a chief clerk looks" in document.condition_info.sentence
        assert (await case.row()).waiting_on == "chief"
        case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
        assert await case.work() == "finished"
        assert ((await case.row()).state, (await case.row()).waiting_on) == ("shipped", None)

    async def test_blocks_for_the_owner_that_it_names(self, database):
        case = await waiting_for_weeks(database, Block("logistics"))
        await case.pass_deadline()
        document = await case.document()
        info = document.condition_info
        assert (document.condition, info.cause, info.recovery_owner) == ("blocked", "deadline", "logistics")
        assert info.sentence == "Shipping: the time for it is over. Logistics decides."
        row = await case.row()
        assert (row.condition, row.recovery_owner) == ("blocked", "logistics")
        assert (await case.timeline())[-2:] == ["deadline.passed", "case.overdue"]

    async def test_is_blocked_no_longer_once_the_work_is_done(self, database):
        case = await waiting_for_weeks(database, BLOCK)
        await case.pass_deadline()
        case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
        assert await case.work() == "finished"
        row = await case.row()
        assert (row.state, row.condition, row.overdue) == ("shipped", "done", None)

    async def test_retry_gives_a_blocked_one_its_time_again(self, database):
        case = await waiting_for_weeks(database, BLOCK)
        await case.pass_deadline()
        assert await offered(case, "retry")
        retry = await case.override("retry", OPERATOR)
        assert (await case.operation(retry.operation_id)).state == "completed"
        document, row = await case.document(), await case.row()
        assert (document.condition, row.overdue) == ("waiting", None)
        assert row.deadline_at - row.changed_at == THREE_WEEKS
        news = (await case.messages())[-1].payload["news"]
        assert news["deadline_at"] == row.deadline_at.isoformat(), "or the workflow never asks again"
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        assert (await case.row()).condition == "blocked"

    @pytest.mark.parametrize("way_out", ["cancel", "undo", "force_cancel"])
    async def test_people_get_a_blocked_one_out(self, database, way_out):
        case = await waiting_for_weeks(database, BLOCK)
        await case.pass_deadline()
        await (case.take("cancel") if way_out == "cancel" else case.override(way_out))
        row = await case.row()
        assert (row.overdue, row.deadline_at, row.condition) == (None, None, "undoing")

    async def test_what_has_begun_and_can_not_be_undone_blocks_instead(self, database):
        final = step("send_letter", undo=IMPOSSIBLE)
        case = await waiting_for_weeks(database, UNDO, final, PATIENT_LABEL)
        await case.pass_deadline()
        document = await case.document()
        owner = document.condition_info.recovery_owner
        assert (document.condition, document.condition_info.cause, owner) == ("blocked", "deadline", "front_desk")
        assert (await case.operation()).name == "ship"

    async def test_a_step_that_is_blocked_is_told_first(self, database):
        case = await Desk(database, within(THREE_WEEKS, BLOCK)).open()
        await case.take("ship")
        case.desk.partner.next(rejected())
        assert await case.work() == "blocked"
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        assert (await case.document()).condition_info.cause == "rejected"
        assert await offered(case, "retry")

    async def test_is_over_once_the_operation_is_being_taken_back(self, database):
        case = await waiting_for_weeks(database, UNDO)
        visit = (await case.row()).visit
        await case.override("undo")
        row = await case.row()
        assert (row.state, row.visit, row.deadline_at) == ("shipping", visit, None)
        before = await case.dump()
        await case.pass_deadline(visit)
        assert await case.dump() == before

    async def test_is_told_to_the_workflow(self, database):
        case = await Desk(database, within(THREE_WEEKS, UNDO)).open()
        await case.take("ship")
        row, news = await case.row(), (await case.messages())[-1].payload["news"]
        assert (news["deadline_at"], news["visit"]) == (row.deadline_at.isoformat(), row.visit)

    async def test_belongs_to_one_visit(self, database):
        case = await waiting_for_weeks(database, UNDO)
        visit = (await case.row()).visit
        case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
        await case.work()
        await case.override("undo")
        await case.work()
        await case.take("ship")
        before = await case.dump()
        await case.pass_deadline(visit)
        assert await case.dump() == before

    async def test_not_a_moment_too_early_but_for_the_clocks(self, database):
        case = await Desk(database, within(THREE_WEEKS, UNDO)).open()
        await case.take("ship")
        await case.time_passes(THREE_WEEKS - timedelta(minutes=1))
        before = await case.dump()
        news = await case.pass_deadline()
        assert await case.dump() == before
        assert news.version == (await case.row()).version, "by which the workflow knows that it has to ask again"


class TestRaces:
    async def test_an_attempt_under_way_when_the_deadline_undoes_is_settled_and_taken_back(self, database):
        case = await Desk(database, within(THREE_WEEKS, UNDO, BOOK)).open()
        await case.take("ship")
        begun = await case.begin("book_carrier")
        assert isinstance(begun, Begun)
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        assert (await begun.settle("succeeded")).state == "superseded"
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert (await case.effect("book_carrier")).offset_at is not None

    async def test_a_person_before_the_deadline_wins(self, database):
        case = await waiting_for_weeks(database, UNDO)
        visit = (await case.row()).visit
        await case.take("cancel")
        before = await case.dump()
        await case.pass_deadline(visit)
        assert await case.dump() == before

    async def test_a_person_behind_the_deadline_hears_that_the_case_moved(self, database):
        case = await Desk(database, within(THREE_WEEKS, Take("scrap"), state="abandoned")).open()
        await case.take("store")
        await case.take("abandon", CHIEF)
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        with pytest.raises(ActionNotAllowed) as refused:
            await case.take("scrap", person("chief"))
        assert refused.value.first_code == "wrong_state"

    @pytest.mark.parametrize("then", [UNDO, Take("cancel"), BLOCK, Escalate("chief")], ids=lambda then: str(then)[:12])
    async def test_whoever_commits_first_wins_and_the_case_ends_well(self, database, then):
        for _ in range(5):
            case = await waiting_for_weeks(database, then, BOOK, PATIENT_LABEL)
            visit = (await case.row()).visit
            await all_at_once(
                case.pass_deadline(visit),
                case.take("cancel"),
                case.run("print_label"),
                case.pass_deadline(visit),
                case.override("undo", SENIOR),
            )
            assert (await case.timeline()).count("deadline.passed") <= 1
            assert await case.chain_break() is None
            case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
            await case.time_passes(timedelta(minutes=1))
            assert await case.work() == "finished"
            assert (await case.row()).state in {"draft", "cancelled"}
            left = [a for a, e in (await case.effects()).items() if e.standing and e.direction == "do"]
            assert left == []


class TestOfAStateAtRest:
    async def test_undo_takes_back_what_led_there(self, database):
        case = await Desk(database, within(THREE_WEEKS, UNDO, BOOK, state="shipped")).open()
        await case.take("ship")
        assert await case.work() == "finished"
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        assert (await case.document()).condition == "undoing"
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert (await case.effect("book_carrier")).offset_at is not None

    async def test_a_blocked_one_is_left_by_any_transition(self, database):
        case = await Desk(database, within(THREE_WEEKS, BLOCK, state="stored")).open()
        await case.take("store")
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        document = await case.document()
        info = document.condition_info
        assert (document.condition, info.cause, info.recovery_owner) == ("blocked", "deadline", "front_desk")
        await case.take("correct", CLERK, parcel={"to": "Bergen"})
        assert ((await case.row()).overdue, (await case.row()).condition) == (None, "waiting")

    async def test_a_blocked_one_gets_its_time_again_by_retry(self, database):
        case = await Desk(database, within(THREE_WEEKS, BLOCK, state="stored")).open()
        await case.take("store")
        assert not await offered(case, "retry")
        await case.time_passes(A_MONTH)
        await case.pass_deadline()
        assert await offered(case, "retry")
        await case.override("retry", OPERATOR)
        row = await case.row()
        assert (row.overdue, row.condition, row.deadline_at > row.changed_at) == (None, "waiting", True)
        assert not await offered(case, "retry")

    async def test_what_is_taken_back_late_leaves_the_states_deadline_alone(self, database):
        """A success that lands after the case has gone on is offset in the state where it rests now."""
        case = await Desk(database, within(THREE_WEEKS, BLOCK, BOOK, LABEL, state="shipped")).open()
        await case.take("ship")
        await case.run("book_carrier")
        begun = await case.begin("print_label")
        assert isinstance(begun, Begun)
        assert (await begun.settle("unknown")).state == "retrying"
        await case.override("skip", SENIOR, happened=False)
        assert (await case.finish()).state == "finished"
        row = await case.row()
        assert (row.state, row.deadline_at is None) == ("shipped", False)
        await begun.settle("succeeded")
        after = await case.row()
        assert (after.operation_id is not None, after.deadline_at) == (True, row.deadline_at)
        assert await case.work() == "finished"
        assert ((await case.row()).deadline_at, (await case.row()).state) == (row.deadline_at, "shipped")


class TestOfAStep:
    """How long a partner that acknowledged may take is the step's; what then, too."""

    async def never_answered(self, database, **declared: Any) -> Handle:
        label = replace(LABEL, answer_within=timedelta(weeks=2), **declared)
        case = await Desk(database, parcels(BOOK, label)).open()
        await case.take("ship")
        case.desk.partner.next(None, acknowledged())
        assert await case.work() == "waiting"
        await case.time_passes(timedelta(days=13))
        assert await case.work() == "waiting", "its time is not over"
        await case.time_passes(timedelta(days=2))
        return case

    async def test_blocks_by_default(self, database):
        case = await self.never_answered(database)
        assert (await case.run("print_label")).state == "blocked"
        effect = await case.effect("print_label")
        assert (effect.cause, effect.recovery_owner) == ("no_answer", "warehouse")

    async def test_undoes_the_operation_where_it_says_so(self, database):
        case = await self.never_answered(database, exhausted="undo")
        assert (await case.run("print_label")).state == "superseded"
        undo = await case.operation()
        assert (undo.name, undo.actor_id) == ("undo", "system")
        # Whether it happened is still open: it is asked for once more, and then a person decides.
        assert await case.work() == "waiting"
        await case.time_passes(timedelta(weeks=3))
        assert await case.work() == "blocked"
        assert (await case.effect("print_label")).cause == "no_answer"

    async def test_goes_on_without_where_it_says_so(self, database):
        case = await self.never_answered(database, exhausted="proceed")
        assert (await case.run("print_label")).state == "settled"
        effect = await case.effect("print_label")
        assert (effect.decision, effect.outcome, effect.next_attempt_at) == ("given_up", "acknowledged", None)
        assert await case.work() == "finished"
        assert (await case.row()).state == "shipped"

    async def test_what_was_given_up_is_asked_for_when_it_is_to_be_taken_back(self, database):
        case = await self.never_answered(database, exhausted="proceed")
        assert await case.work() == "finished"
        case.desk.partner._happen((await case.effect("print_label")).key, idempotent=False)
        await case.override("undo")
        assert await case.work() == "finished"
        assert (await case.effect("print_label")).offset_at is not None
