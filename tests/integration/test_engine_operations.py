"""Operations between acceptance and outcome: superseding, undo, force_cancel, blocked stories, deadlines, the end."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from caseward.errors import ActionNotAllowed, BusinessKeyTaken, CaseNotFound, IdempotencyKeyReused, VersionStale
from caseward.process import IMPOSSIBLE, NONE_NEEDED, State, Transition
from tests.integration.desk import Desk, all_at_once, dump
from tests.integration.parcels import (
    CHIEF,
    CLERK,
    OPERATOR,
    SENIOR,
    LostReply,
    acknowledged,
    parcels,
    person,
    rejected,
    silent,
    step,
    transient,
)

LONG = timedelta(hours=2)
BOOK, LABEL, PAY = step("book"), step("label", partner="askable"), step("pay", partner="stubborn")


@pytest.fixture
def desk(database) -> Desk:
    return Desk(database, parcels(BOOK, LABEL, PAY))


async def codes(attempt) -> list[str]:
    """Why it is refused."""
    with pytest.raises(ActionNotAllowed) as refused:
        await attempt
    return [reason.code for reason in refused.value.reasons]


def done(case) -> list[str]:
    """What happened at the partner, by step, in order."""
    return [key.split(":", 1)[1] for key in case.desk.partner.happened]


class TestAcceptance:
    async def test_a_transition_without_steps_is_completed_at_once(self, desk):
        case = await desk.open()
        accepted = await case.take("store")
        operation = await case.operation(accepted.operation_id)
        assert (operation.state, operation.to_state) == ("completed", "stored")
        assert (await case.row()).operation_id is None

    async def test_one_with_steps_enters_its_pending_state_and_is_promised(self, desk):
        case = await desk.open()
        accepted = await case.take("ship", reason="Paid in advance")
        document = await case.document()
        assert (document.state, document.condition) == ("shipping", "queued")
        assert [step.state for step in document.operation.steps] == ["pending"] * 3
        order = (await case.messages())[-1].payload["order"]
        assert (order["operation_id"], order["story"]) == (str(accepted.operation_id), True)
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id, entry.reason) == ("operation.accepted", CLERK.id, "Paid in advance")

    async def test_open_and_cancel_need_no_worker(self, desk):
        case = await desk.open()
        await case.take("cancel")
        row = await case.row()
        assert (row.state, row.final, row.condition) == ("cancelled", True, "done")

    async def test_messages_carry_no_personal_data(self, desk):
        case = await desk.open()
        await case.take("ship_corrected", parcel={"to": "Svalbard"}, reason="For Mrs Svalbard")
        await case.run("book")
        assert "Svalbard" not in str([message.payload for message in await case.messages()])

    async def test_a_stale_version_is_refused_before_anything_else(self, desk):
        case = await desk.open()
        before = await dump(desk.database)
        with pytest.raises(VersionStale) as refused:
            await case.take("scrap", OPERATOR, version=7)
        assert refused.value.members == {"state": "draft", "version": 1, "etag": "1"}
        assert await dump(desk.database) == before

    async def test_the_case_of_another_process_is_not_found(self, desk):
        other = Desk(desk.database, parcels(BOOK, name="letter"))
        case = await other.open()
        case.desk = desk
        for attempt in (case.take("ship"), case.override("undo"), case.document()):
            with pytest.raises(CaseNotFound):
                await attempt

    async def test_somebody_without_a_role_here_does_not_see_the_case(self, desk):
        case = await desk.open()
        for stranger in (person(), person("vendor_reviewer")):
            for attempt in (case.take("ship", stranger), case.override("undo", stranger), case.document(stranger)):
                with pytest.raises(CaseNotFound):
                    await attempt

    async def test_an_unknown_action_is_refused_not_found_missing(self, desk):
        case = await desk.open()
        assert await codes(case.take("fly")) == ["unknown_action"]
        assert await codes(case.take("open")) == ["unknown_action"]


class TestFourEyes:
    async def test_whoever_did_the_one_may_not_do_the_other(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.take("abandon", CHIEF)
        before = await case.dump()
        assert await codes(case.take("scrap", CHIEF)) == ["four_eyes"]
        assert await case.dump() == before
        await case.take("scrap", person("chief"))
        assert (await case.row()).state == "scrapped"

    async def test_in_another_role_it_is_still_the_same_person(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.take("abandon", CHIEF)
        assert await codes(case.take("scrap", person("chief", "clerk", name=CHIEF.id))) == ["four_eyes"]


class TestSuperseding:
    async def test_offsets_what_was_done_latest_first(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.run("label")
        await case.take("cancel", CHIEF)
        document = await case.document()
        assert (document.state, document.condition) == ("cancelling", "undoing")
        undoing = [step.name for step in document.operation.steps if step.direction == "undo"]
        assert undoing == ["label:undo", "book:undo"]
        assert await case.work() == "finished"
        assert done(case) == ["book", "label", "label:undo", "book:undo"]
        assert (await case.row()).state == "cancelled"
        assert [step.state for step in (await case.effects()).values()] == ["settled"] * 4

    async def test_the_voided_operation_says_by_what(self, desk):
        case = await desk.open()
        shipping = await case.take("ship")
        cancel = await case.take("cancel")
        old = await case.operation(shipping.operation_id)
        assert (old.state, old.superseded_by) == ("superseded", cancel.operation_id)
        assert (await case.operation(cancel.operation_id)).supersedes == shipping.operation_id
        assert (await case.operation_document(shipping.operation_id)).state == "superseded"

    async def test_finds_out_first_what_became_of_an_unknown_outcome(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        desk.partner.next(LostReply())
        await case.run("label")
        await case.take("cancel")
        assert await case.work() == "finished"
        assert done(case) == ["book", "label", "label:undo", "book:undo"]
        assert len(desk.partner.asked) == 1

    async def test_what_surely_did_not_happen_is_not_asked_for(self, desk):
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(rejected())
        await case.run("book")
        await case.take("cancel")
        assert (await case.row()).state == "cancelled", "with nothing to take back it is over at once"
        assert (await case.effect("book")).decision == "voided"
        assert desk.partner.asked == []

    async def test_an_unknown_outcome_that_nobody_can_ask_for_blocks_it_for_the_owner(self, database):
        desk = Desk(database, parcels(step("pay", partner="stubborn", owner="treasury")))
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(LostReply())
        await case.run("pay")
        await case.take("cancel")
        assert await case.work() == "blocked"
        document = await case.document()
        assert (document.state, document.condition_info.recovery_owner) == ("cancelling", "treasury")
        await case.override("mark_done", step="pay", result={"number": "R1"})
        assert await case.work() == "finished"
        assert done(case) == ["pay", "pay:undo"]

    async def test_an_attempt_under_way_is_settled_and_then_offset(self, desk):
        case = await desk.open()
        await case.take("ship")
        acting = await case.begin("book")
        await case.take("cancel")
        assert (await acting.settle("succeeded")).state == "superseded"
        assert await case.work() == "finished"
        assert done(case) == ["book:undo"]

    async def test_an_attempt_under_way_that_fails_leaves_nothing_to_do(self, desk):
        case = await desk.open()
        await case.take("ship")
        acting = await case.begin("book")
        await case.take("cancel")
        await acting.settle("transient")
        assert (await case.effect("book")).decision == "voided"
        assert await case.work() == "finished"

    @pytest.mark.parametrize("exhausted", ["undo", "proceed", "block"])
    async def test_what_the_old_step_declares_for_its_end_does_not_touch_the_new_operation(self, database, exhausted):
        """Its last attempt ends after the case was taken over: nobody goes on without it or takes the new one back."""
        desk = Desk(database, parcels(step("book", partner="askable", exhausted=exhausted, retry=step("x").retry)))
        case = await desk.open()
        await case.take("ship")
        for _ in range(2):
            desk.partner.next(silent())
            desk.partner.probe_says = silent()
            await case.run("book")
            await case.time_passes(LONG)
        acting = await case.begin("book")
        cancel = await case.take("cancel")
        await acting.settle("unknown")
        operation = await case.operation()
        assert operation.id == cancel.operation_id
        effect = await case.effect("book")
        assert (effect.state, effect.decision, effect.outcome) == ("retrying", None, "unknown")
        desk.partner.probe_says = None
        await case.time_passes(LONG)
        assert await case.work() == "finished"
        assert (await case.row()).state == "cancelled"

    async def test_a_partner_that_acknowledged_is_waited_for_before_it_is_offset(self, database):
        desk = Desk(database, parcels(step("book", partner="askable")))
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(acknowledged())
        await case.run("book")
        await case.take("cancel")
        await case.time_passes(timedelta(seconds=6))
        assert await case.work() == "waiting"
        desk.partner._happen((await case.effect("book")).key, idempotent=False)
        await case.time_passes(timedelta(seconds=6))
        assert await case.work() == "finished"
        assert done(case) == ["book", "book:undo"]

    async def test_one_that_only_calls_back_and_never_did_is_waited_for_anew_not_asked_without_pause(self, database):
        desk = Desk(database, parcels(step("book", partner="repeatable", answer_within=timedelta(minutes=10))))
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(acknowledged())
        await case.run("book")
        await case.time_passes(LONG)
        assert (await case.run("book")).state == "blocked"
        await case.take("cancel")
        answer = await case.run("book", settle_only=True)
        assert answer.state == "waiting"
        assert answer.delay > 500
        await case.time_passes(LONG)
        assert (await case.run("book", settle_only=True)).state == "blocked"

    async def test_a_request_made_from_a_revised_subject_is_repeated_as_it_was(self, desk):
        case = await desk.open()
        await case.take("ship_corrected", parcel={"to": "Bergen"})
        desk.partner.next(LostReply())
        await case.run("book")
        await case.take("cancel")
        assert await case.work() == "finished"
        assert [sent.content.get("to") for sent in desk.partner.sent] == ["Bergen", "Bergen", None]
        assert desk.partner.sent[0] == desk.partner.sent[1]
        assert done(case) == ["book", "book:undo"]

    async def test_a_step_without_compensation_is_let_go(self, database):
        desk = Desk(database, parcels(step("mail", partner="stubborn", undo=NONE_NEEDED)))
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(LostReply())
        await case.run("mail")
        await case.take("cancel")
        assert (await case.row()).state == "cancelled"
        assert "effect.dropped" in await case.timeline()
        assert "effect.voided" not in await case.timeline(), "nobody knows that it did not happen"
        assert (await case.effect("mail")).outcome == "unknown"

    async def test_an_override_that_was_helping_ends_with_what_it_helped(self, desk):
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(transient())
        await case.run("book")
        retry = await case.override("retry", step="book")
        await case.take("cancel")
        helper = await case.operation(retry.operation_id)
        assert helper.state == "superseded"
        told = [entry.type for entry in await case.entries() if entry.operation_id == helper.id]
        assert told == ["operation.accepted", "operation.superseded"]


class TestUndo:
    async def test_of_the_transition_in_flight_leads_back_to_where_it_came_from(self, desk):
        case = await desk.open()
        shipping = await case.take("ship")
        await case.run("book")
        desk.partner.next(rejected())
        await case.run("label")
        undo = await case.override("undo", OPERATOR)
        document = await case.document()
        assert (document.state, document.condition) == ("shipping", "undoing")
        assert (await case.operation(shipping.operation_id)).state == "undoing"
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert (await case.operation(shipping.operation_id)).state == "undone"
        assert (await case.operation(undo.operation_id)).to_state == "draft"
        assert done(case) == ["book", "book:undo"]

    async def test_of_a_completed_transition_too(self, desk):
        case = await desk.open()
        shipping = await case.take("ship")
        assert await case.work() == "finished"
        await case.override("undo", SENIOR)
        assert (await case.row()).state == "shipping"
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert (await case.operation(shipping.operation_id)).state == "undone"
        assert done(case) == ["book", "label", "pay", "pay:undo", "label:undo", "book:undo"]

    async def test_drops_the_operations_revision_of_the_subject(self, desk):
        case = await desk.open()
        await case.take("ship_corrected", parcel={"to": "Bergen"})
        await case.work()
        assert ((await case.document()).subject["to"], (await case.row()).title) == ("Bergen", "Parcel to Bergen")
        await case.override("undo", SENIOR)
        await case.work()
        assert ((await case.document()).subject["to"], (await case.row()).title) == ("Oslo", "Parcel to Oslo")
        await case.take("correct", parcel={"to": "Narvik"})
        assert (await case.row()).subject_revision == 3, "a revision's number is never given twice"

    async def test_of_one_without_steps_happens_at_once(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.override("undo", OPERATOR)
        assert (await case.row()).state == "draft"

    async def test_leads_to_the_state_that_the_transition_declares(self, database):
        states = parcels().states
        transitions = (
            Transition(
                "open",
                "Pack",
                to="draft",
                roles=frozenset({"clerk"}),
                pending="shipping",
                steps=(BOOK,),
                undone="cancelled",
            ),
            *parcels().transitions[1:],
        )
        desk = Desk(database, parcels(states=states, transitions=transitions))
        case = await desk.open()
        await case.run("book")
        await case.override("undo", OPERATOR)
        await case.work()
        row = await case.row()
        assert (row.state, row.final) == ("cancelled", True)

    async def test_a_second_one_is_refused(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.override("undo")
        assert await codes(case.override("undo")) == ["already_undoing"]
        await case.work()
        assert await codes(case.override("undo")) == ["nothing_to_undo"]

    async def test_is_not_offered_once_a_step_has_begun_that_cannot_be_taken_back(self, database):
        desk = Desk(database, parcels(BOOK, step("burn", undo=IMPOSSIBLE)))
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        offered = next(action for action in (await case.document()).actions if action.name == "undo")
        assert offered.allowed
        await case.run("burn")
        assert await codes(case.override("undo")) == ["undo_impossible"]
        assert (await case.finish()).state == "finished"
        assert await codes(case.override("undo")) == ["undo_impossible"]

    async def test_is_superseded_by_a_cancel_that_takes_over_the_rest(self, desk):
        case = await desk.open()
        shipping = await case.take("ship")
        await case.run("book")
        await case.run("label")
        undo = await case.override("undo")
        await case.run("label:undo")
        cancel = await case.take("cancel", CHIEF)
        assert {(await case.operation(one.operation_id)).state for one in (shipping, undo)} == {"superseded"}
        assert (await case.operation(cancel.operation_id)).offsets == [f"{shipping.operation_id}:book"]
        assert await case.work() == "finished"
        assert done(case) == ["book", "label", "label:undo", "book:undo"]
        assert (await case.row()).state == "cancelled"

    async def test_of_a_cancel_that_has_taken_everything_back_reopens_the_case(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.take("cancel")
        await case.work()
        await case.override("undo", SENIOR)
        row = await case.row()
        assert (row.state, row.final, row.operation_id) == ("draft", False, None)

    async def test_of_a_cancel_under_way_goes_on_taking_back_and_leaves_the_case_open(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.take("cancel")
        await case.override("undo", SENIOR)
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert done(case) == ["book", "book:undo"]

    async def test_a_compensation_blocks_for_its_owner_and_can_be_helped_by_name(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.override("undo")
        desk.partner.next(rejected())
        assert await case.work() == "blocked"
        document = await case.document()
        assert (document.condition, document.condition_info.step) == ("blocked", "book:undo")
        assert await codes(case.override("skip", OPERATOR, step="book:undo")) == ["role_missing"]
        await case.override("retry", OPERATOR, step="book:undo")
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None

    async def test_a_compensation_done_by_hand_counts(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.override("undo")
        desk.partner.next(rejected())
        await case.work()
        await case.override("mark_done", step="book:undo")
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None

    async def test_a_compensation_left_out_stays_left_out_whatever_comes_later(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        await case.override("undo")
        desk.partner.next(rejected())
        await case.work()
        await case.override("skip", SENIOR, step="book:undo")
        assert await case.work() == "finished"
        assert (await case.effect("book")).standing, "it still stands outside, and that is on record"
        await case.override("force_cancel", SENIOR)
        assert (await case.row()).state == "cancelled"
        assert done(case) == ["book"]


class TestForceCancel:
    async def in_state(self, desk: Desk, situation: str):  # noqa: C901 - a flat list of situations
        case = await desk.open()
        if situation == "draft":
            return case
        if situation in {"stored", "abandoned"}:
            await case.take("store")
            if situation == "abandoned":
                await case.take("abandon", CHIEF)
            return case
        await case.take("ship")
        if situation == "accepted":
            return case
        await case.run("book")
        if situation == "shipped":
            await case.work()
        elif situation == "blocked":
            desk.partner.next(rejected())
            await case.run("label")
        elif situation == "unknown":
            desk.partner.next(LostReply())
            await case.run("label")
        elif situation == "acting":
            case.acting = await case.begin("label")
        elif situation == "undoing":
            await case.run("label")
            await case.override("undo")
            await case.run("label:undo")
        elif situation == "cancelling":
            await case.take("cancel")
        elif situation == "story blocked":
            await case.block_story()
        return case

    SITUATIONS = (
        *("draft", "stored", "abandoned", "accepted", "running", "blocked", "unknown", "acting", "shipped"),
        *("undoing", "cancelling", "story blocked"),
    )

    @pytest.mark.parametrize("situation", SITUATIONS)
    async def test_closes_the_case_with_nothing_left_standing(self, desk, situation):
        case = await self.in_state(desk, situation)
        await case.override("force_cancel", SENIOR)
        if situation == "acting":
            await case.acting.settle("unknown")
            await case.time_passes(LONG)
        if (await case.row()).operation_id:
            assert await case.work() == "finished"
        row = await case.row()
        assert (row.state, row.final, row.condition) == ("cancelled", True, "done")
        assert not any(effect.standing for effect in (await case.effects()).values())
        undone = [key.removesuffix(":undo") for key in done(case) if key.endswith(":undo")]
        assert undone == [key for key in reversed(done(case)) if not key.endswith(":undo")], "latest first"
        assert await case.chain_break() is None

    async def test_takes_back_what_several_operations_left_standing(self, desk):
        case = await desk.open()
        for _ in range(2):
            await case.take("ship")
            await case.work()
            await case.take("take_back")
            await case.take("correct", parcel={"to": "Bergen"})
        await case.override("force_cancel", SENIOR)
        assert await case.work() == "finished"
        assert done(case)[6:] == ["pay:undo", "label:undo", "book:undo"] * 2
        assert len(set(desk.partner.happened)) == 12

    async def test_is_refused_to_operators_and_on_closed_cases_and_twice(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        assert await codes(case.override("force_cancel", OPERATOR)) == ["role_missing"]
        await case.override("force_cancel", SENIOR)
        assert await codes(case.override("force_cancel", SENIOR)) == ["already_cancelling"]
        await case.work()
        assert await codes(case.override("force_cancel", SENIOR)) == ["already_final"]


class TestFinish:
    async def test_checks_its_postcondition(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        assert (await case.finish()).state == "blocked"
        document = await case.document()
        assert (document.condition, document.condition_info.recovery_owner) == ("blocked", "engineering")
        assert document.condition_info.last_error["message"] == "the story left out label, pay"

    async def test_an_open_step_is_no_end(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        desk.partner.next(rejected())
        await case.run("label")
        assert (await case.finish()).state == "blocked"
        assert (await case.operation()).blocked["error"]["message"] == "the story ended while label was open"

    async def test_a_state_that_is_not_declared_is_no_end(self, database):
        process = parcels(BOOK)
        transitions = tuple(
            t
            if t.name != "ship"
            else Transition(
                "ship",
                "Ship",
                source=t.source,
                pending=t.pending,
                to=("shipped", "stored"),
                roles=t.roles,
                steps=t.steps,
            )
            for t in process.transitions
        )
        desk = Desk(database, parcels(BOOK, transitions=transitions))
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        for nonsense in (None, "draft", "nowhere"):
            assert (await case.finish(nonsense)).state == "blocked"
        assert (await case.finish("stored")).state == "finished"

    async def test_of_a_finished_operation_answers_again_and_changes_nothing(self, desk):
        case = await desk.open()
        await case.take("ship")
        operation, row = await case.operation(), await case.row()
        await case.work()
        before = await case.dump()
        from caseward.cases import operations
        from caseward.messages import FinishCall

        async with desk.database.transaction() as session:
            call = FinishCall("parcel", str(case.id), str(operation.id), row.fence, "shipped")
            answer = await operations.finish(session, desk.catalogue, call)
        assert answer.state == "finished"
        assert await case.dump() == before


class TestBlockedStory:
    async def test_is_engineerings_and_goes_on_by_retry(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.block_story("KeyError: 'weight'")
        document = await case.document(OPERATOR)
        assert (document.condition, document.condition_info.cause) == ("blocked", "story_failed")
        assert (await case.operation_document(document.operation.operation_id)).recovery_owner == "engineering"
        retry = await case.override("retry", OPERATOR)
        assert (await case.operation(retry.operation_id)).state == "completed"
        assert (await case.document()).condition == "queued"
        nudge = (await case.messages())[-1].payload["order"]
        assert (nudge["step"], nudge["takes_over"]) == (None, False)
        assert await case.work() == "finished"

    async def test_the_same_fault_again_is_told_again(self, desk):
        case = await desk.open()
        await case.take("ship")
        await case.block_story()
        await case.override("retry", OPERATOR)
        await case.block_story()
        assert (await case.timeline()).count("operation.blocked") == 2

    async def test_of_a_voided_operation_is_nobodys_any_more(self, desk):
        case = await desk.open()
        await case.take("ship")
        operation, row = await case.operation(), await case.row()
        await case.override("undo")
        before = await case.dump()
        from caseward.cases import operations
        from caseward.messages import BlockCall

        async with desk.database.transaction() as session:
            call = BlockCall("parcel", str(case.id), str(operation.id), row.fence, "story_failed", "late")
            await operations.block_operation(session, desk.catalogue, call)
        assert await case.dump() == before


class TestDeadlines:
    async def test_escalates_when_the_instant_has_come_and_not_before(self, desk):
        case = await desk.open()
        await case.take("store")
        early = await case.pass_deadline()
        assert (early.version, (await case.row()).escalated_to) == ((await case.row()).version, None)
        await case.time_passes(timedelta(days=2))
        await case.pass_deadline()
        row = await case.row()
        assert (row.waiting_on, row.recovery_owner, row.deadline_at) == ("chief", "chief", None)
        assert (await case.timeline())[-2:] == ["deadline.passed", "case.escalated"]

    async def test_takes_a_transition_as_the_system(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.take("abandon", CHIEF)
        await case.time_passes(timedelta(days=31))
        await case.pass_deadline()
        row = await case.row()
        assert (row.state, row.final) == ("scrapped", True)
        assert [(e.actor_id, e.reason) for e in await case.entries() if e.type == "operation.accepted"][-1] == (
            "system",
            "The deadline passed.",
        )

    async def test_belongs_to_one_visit(self, desk):
        case = await desk.open()
        await case.take("store")
        visit = (await case.row()).visit
        await case.take("correct", parcel={"to": "Bergen"})
        await case.take("store")
        await case.time_passes(timedelta(days=2))
        before = await case.dump()
        await case.pass_deadline(visit)
        assert await case.dump() == before
        await case.pass_deadline()
        assert (await case.row()).escalated_to == "chief"

    async def test_passes_once(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.time_passes(timedelta(days=2))
        visit = (await case.row()).visit
        await all_at_once(*(case.pass_deadline(visit) for _ in range(5)))
        assert (await case.timeline()).count("deadline.passed") == 1

    async def test_first_commit_wins_against_a_person(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.take("abandon", CHIEF)
        await case.time_passes(timedelta(days=31))
        outcomes = await all_at_once(case.pass_deadline(), case.take("scrap", person("chief")))
        assert (await case.row()).state == "scrapped"
        assert (await case.timeline()).count("operation.completed") == 3
        assert sum(isinstance(outcome, ActionNotAllowed) for outcome in outcomes) <= 1

    async def test_one_that_is_no_longer_declared_is_forgotten(self, desk):
        case = await desk.open()
        await case.take("store")
        await case.time_passes(timedelta(days=2))
        states = tuple(
            State(state.name, state.title, state.meaning, waiting_on=state.waiting_on, final=state.final)
            for state in desk.process.states
        )
        case.desk = Desk(desk.database, parcels(BOOK, states=states))
        news = await case.pass_deadline()
        assert news.deadline_at is None, "or the workflow asks again, for ever"
        assert (await case.row()).escalated_to is None


class TestTheEnd:
    async def test_a_final_state_frees_the_business_key(self, desk):
        key = str(uuid4())
        case = await desk.open(business_key=key)
        with pytest.raises(BusinessKeyTaken) as refused:
            await desk.open(business_key=key)
        assert refused.value.members["case_id"] == str(case.id)
        await case.take("cancel")
        await desk.open(business_key=key)

    async def test_reopening_wants_it_back(self, desk):
        key = str(uuid4())
        case = await desk.open(business_key=key)
        await case.take("cancel")
        other = await desk.open(business_key=key)
        before = await dump(desk.database)
        for attempt in (case.take("reopen"), case.override("undo")):
            with pytest.raises(BusinessKeyTaken) as refused:
                await attempt
            assert refused.value.members["case_id"] == str(other.id)
        assert await dump(desk.database) == before
        await other.take("cancel")
        await case.take("reopen")
        assert (await case.row()).state == "draft"

    async def test_of_two_reopenings_at_once_one_wins(self, desk):
        key = str(uuid4())
        cases = []
        for _ in range(2):
            cases.append(await desk.open(business_key=key))
            await cases[-1].take("cancel")
        outcomes = await all_at_once(*(case.take("reopen") for case in cases))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "BusinessKeyTaken"]


class TestIdempotency:
    async def test_the_same_command_is_the_same_operation_whatever_became_of_it(self, desk):
        case = await desk.open()
        first = await case.take("ship", key="K1")
        await case.work()
        before = await case.dump()
        again = await case.take("ship", key="K1")
        assert (again.operation_id, again.repeated) == (first.operation_id, True)
        assert await case.dump() == before

    async def test_the_key_is_looked_up_before_version_and_policy(self, desk):
        case = await desk.open()
        first = await case.take("cancel", key="K2", version=1)
        again = await case.take("cancel", key="K2", version=1)
        assert again.operation_id == first.operation_id

    async def test_other_content_is_refused_and_changes_nothing(self, desk):
        case, other = await desk.open(key="K3"), await desk.open()
        await case.take("ship", key="K4", reason="Paid")
        before = await dump(desk.database)
        for attempt in (
            case.take("ship", key="K4", reason="Not paid"),
            case.take("cancel", key="K4"),
            other.take("ship", key="K4", reason="Paid"),
            case.override("undo", CLERK, key="K4"),
            desk.open(key="K3"),
        ):
            with pytest.raises(IdempotencyKeyReused):
                await attempt
        assert await dump(desk.database) == before

    async def test_keys_are_everybodys_own(self, desk):
        case = await desk.open()
        await case.take("ship", key="K5")
        await case.take("cancel", CHIEF, key="K5")
        assert (await case.row()).state == "cancelled"

    async def test_a_refusal_binds_no_key(self, desk):
        case = await desk.open()
        await codes(case.take("take_back", key="K6"))
        await case.take("store", key="K6")


class TestTimelineInTheDatabase:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE timeline_entries SET actor_id = 'nobody' WHERE case_id = :id",
            "DELETE FROM timeline_entries WHERE case_id = :id",
            "TRUNCATE timeline_entries",
            "TRUNCATE timeline_entries CASCADE",
        ],
    )
    async def test_entries_are_never_changed_or_removed(self, desk, statement):
        case = await desk.open()
        with pytest.raises(DBAPIError, match="never changed or removed"):
            async with desk.database.transaction() as session:
                await session.execute(text(statement), {"id": case.id} if ":id" in statement else {})
        assert await case.timeline() == ["case.opened"]

    async def test_the_chain_of_a_whole_life_is_whole(self, desk):
        case = await desk.open()
        await case.take("ship_corrected", parcel={"to": 'Tromsø "north"', "weight": 0.1})
        await case.work()
        await case.override("undo", SENIOR, reason="Zurück, bitte: \u2028 \\u0041")
        await case.work()
        assert await case.chain_break() is None

    @pytest.mark.parametrize("weight", [1e16, 1.5e300, 1e-7, -0.0, 123456789.125, 5e-324, 2**53 + 0.0])
    async def test_numbers_survive_the_way_through_the_database(self, desk, weight):
        case = await desk.open()
        await case.take("correct", parcel={"to": "Oslo", "weight": weight})
        assert await case.chain_break() is None
