"""Partners that finish later, rule by rule: every order of reply, callback, lapse, takeover and people's decisions."""

import asyncio
import random
from datetime import timedelta

import pytest
from sqlalchemy import text

from caseward.activity import CallbackUnread
from caseward.cases.callbacks import list_callbacks
from caseward.cases.effects import LeaseHeld
from caseward.errors import ActionNotAllowed
from caseward.messages import StepAnswer
from caseward.process import IMPOSSIBLE, NONE_NEEDED
from tests.integration.desk import Desk, Handle, all_at_once
from tests.integration.parcels import CHIEF, OPERATOR, SENIOR, acknowledged, parcels, rejected, silent, step, transient

REPEATABLE, ASKABLE, STUBBORN = step("book"), step("book", partner="askable"), step("book", partner="stubborn")
KINDS = pytest.mark.parametrize("kind", [REPEATABLE, ASKABLE, STUBBORN], ids=lambda kind: kind.partner)
LONG = timedelta(hours=2)


async def shipping(database, *steps) -> Handle:
    """A case whose shipment was accepted and not begun."""
    case = await Desk(database, parcels(*(steps or (STUBBORN,)))).open()
    await case.take("ship")
    return case


async def waiting(database, *steps) -> Handle:
    """A case whose first step the partner acknowledged."""
    case = await shipping(database, *steps)
    case.desk.partner.next(acknowledged())
    assert (await case.run("book")).state == "waiting"
    return case


async def unheard(case: Handle, *, parked: bool = False) -> list[str]:
    async with case.desk.database.transaction() as session:
        listed = await list_callbacks(session, parked=parked, limit=10_000)
    return [row.event_id for row in listed.callbacks if row.case_id == case.id or parked]


class TestStoring:
    async def test_is_one_transaction_that_changes_nothing_but_promises_to_take_it_in(self, database):
        case = await waiting(database)
        before = await case.effect("book")
        event_id = await case.call_back("book")
        after = await case.effect("book")
        assert (after.state, after.outcome) == (before.state, before.outcome) == ("waiting", "acknowledged")
        message = (await case.messages())[-1]
        assert (message.destination, message.payload) == ("callbacks", {"partner": "carrier", "event_id": event_id})
        assert await unheard(case) == [event_id]
        assert (await case.timeline())[-1] == "effect.called_back"
        assert await case.chain_break() is None

    async def test_the_same_event_again_changes_nothing(self, database):
        case = await waiting(database)
        event_id = await case.call_back("book")
        before = await case.dump()
        await case.call_back("book", event_id=event_id)
        await case.call_back("book", "failed", event_id=event_id)
        assert await case.dump() == before

    async def test_the_same_event_many_times_at_once_is_stored_once(self, database):
        case = await waiting(database)
        said = await all_at_once(*[case.call_back("book", event_id=f"evt-{case.id}") for _ in range(12)])
        assert not [fault for fault in said if isinstance(fault, Exception)]
        assert (await case.timeline()).count("effect.called_back") == 1
        assert [message.destination for message in await case.messages()].count("callbacks") == 1

    @pytest.mark.parametrize("wrong", [{"effect_key": "nobody:knows"}, {"partner": "somebody_else"}])
    async def test_what_belongs_to_nothing_here_is_parked_and_touches_no_case(self, database, wrong):
        case = await waiting(database)
        before = {table: rows for table, rows in (await case.dump()).items() if table != "callbacks"}
        event_id = await case.call_back("book", **wrong)
        assert event_id in await unheard(case, parked=True)
        assert {table: rows for table, rows in (await case.dump()).items() if table != "callbacks"} == before
        await case.call_back("book", event_id=event_id, **wrong)
        assert (await unheard(case, parked=True)).count(event_id) == 1


class TestTheAnswer:
    @KINDS
    async def test_settles_the_step_by_the_bodys_own_translation(self, database, kind):
        case = await waiting(database, kind)
        await case.hears("book", number="R77")
        answer = await case.run("book")
        assert (answer.state, answer.happened, answer.result) == ("settled", True, {"number": "R77"})
        assert len(case.desk.partner.sent) == 1
        assert await unheard(case) == []
        assert (await case.finish()).state == "finished"

    async def test_nudges_the_workflow_that_waits_for_it(self, database):
        case = await waiting(database)
        told = await case.run("book")
        await case.hears("book")
        order = (await case.messages())[-1].payload["order"]
        assert (order["step"], order["takes_over"]) == ("book", False)
        assert order["version"] > told.version

    @KINDS
    async def test_is_taken_by_the_next_attempt_where_that_comes_first(self, database, kind):
        """The dispatcher is late; the timer or a person's retry is not."""
        case = await waiting(database, kind)
        await case.call_back("book", number="R77")
        await case.time_passes(timedelta(seconds=6))
        await case.override("retry", step="book")
        answer = await case.run("book")
        assert (answer.state, answer.result) == ("settled", {"number": "R77"})
        assert (len(case.desk.partner.sent), case.desk.partner.asked) == (1, [])
        before = await case.dump()
        await case.hear()
        assert await case.dump() == before

    async def test_twice_taken_in_is_once(self, database):
        case = await waiting(database)
        event_id = await case.call_back("book")
        await case.hear()
        before = await case.dump()
        await case.desk.runner.hear(case.id, partner="carrier", event_id=event_id)
        assert await case.dump() == before

    @KINDS
    async def test_of_another_event_with_the_same_answer_changes_nothing(self, database, kind):
        case = await waiting(database, kind)
        await case.hears("book")
        before = await case.effect("book")
        await case.hears("book")
        after = await case.effect("book")
        assert (after.state, after.outcome, after.result) == (before.state, before.outcome, before.result)
        assert "effect.happened_twice" not in await case.timeline()

    @KINDS
    async def test_that_it_was_not_done_after_all_blocks_for_the_owner(self, database, kind):
        case = await waiting(database, kind)
        await case.hears("book", "failed")
        answer, effect = await case.run("book"), await case.effect("book")
        assert (answer.state, effect.outcome, effect.cause) == ("blocked", "failed", "rejected")
        assert effect.error == {"class": "rejected", "code": "no_such_street", "message": "We don't deliver there."}
        await case.override("retry", step="book")
        assert (await case.run("book")).state == "settled", "nothing had happened, so it is safe to send again"
        assert len(case.desk.partner.happened) == 1

    async def test_no_follows_what_the_step_declares(self, database):
        case = await waiting(database, step("book", partner="stubborn", exhausted="proceed"))
        await case.hears("book", "failed")
        assert (await case.run("book")).state == "settled"
        assert (await case.effect("book")).decision == "given_up"

    async def test_no_undoes_the_operation_where_the_step_declares_that(self, database):
        case = await waiting(database, step("book", partner="stubborn", exhausted="undo"))
        await case.hears("book", "failed")
        row = await case.row()
        assert (row.state, row.condition) == ("draft", "waiting"), "nothing stood, so it is undone at once"
        assert (await case.operation(row.latest_id)).name == "undo"

    async def test_of_a_compensation_settles_it(self, database):
        case = await shipping(database, REPEATABLE)
        await case.run("book")
        await case.override("undo")
        case.desk.partner.next(acknowledged())
        assert await case.work() == "waiting"
        await case.hears("book:undo")
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None

    async def test_that_our_code_cannot_read_blocks_for_engineering_and_is_kept(self, database):
        case = await waiting(database)
        await case.hears("book", answer={"nothing": "of ours"})
        answer, effect = await case.run("book"), await case.effect("book")
        assert (answer.state, effect.cause, effect.recovery_owner) == ("blocked", "code_error", "engineering")
        assert effect.error["code"] == "callback_unread"
        assert len(await unheard(case)) == 1
        mended = case.body

        def reads_it(name, direction):
            async def do(call):
                receipt = await call.send(case.desk.partner.stubborn, to=call.subject.to, until=call.accepted_at)
                return receipt.model_copy(update={"number": "read"})

            return do if name == "book" else mended(name, direction)

        case.body = reads_it
        async with database.transaction() as session:  # as a gateway that knows the new form would read it
            await session.execute(
                text("""UPDATE callbacks SET answer = '{"number": "R1"}' WHERE case_id = :id"""), {"id": case.id}
            )
        await case.override("retry", step="book")
        answer = await case.run("book")
        assert (answer.state, answer.result) == ("settled", {"number": "read"})
        assert len(case.desk.partner.sent) == 1, "retry read the stored answer again and sent nothing"

    async def test_about_another_call_is_not_taken_for_ours(self, database):
        case = await waiting(database)
        await case.hears("book", call="something_else")
        assert (await case.effect("book")).cause == "code_error"


class TestBeforeTheReply:
    """The partner calls back while its plain answer is still on the way to us."""

    @KINDS
    @pytest.mark.parametrize("reply", ["acknowledged", "unknown", "transient", "rejected", "succeeded", "code_error"])
    async def test_a_late_plain_reply_changes_nothing(self, database, kind, reply):
        case = await shipping(database, kind)
        attempt = await case.begin("book")
        await case.hears("book")
        answer = await attempt.settle(reply)
        effect = await case.effect("book")
        assert (answer.state, answer.happened) == ("settled", True)
        assert (effect.outcome, effect.result, effect.standing) == ("succeeded", {"number": "R1"}, True)
        assert [attempt.outcome for attempt in await case.attempts("book")] == ["succeeded"]
        assert (await case.finish()).state == "finished"

    async def test_it_settles_also_where_the_worker_died(self, database):
        case = await shipping(database)
        await case.begin("book")
        await case.hears("book")
        assert (await case.run("book")).happened, "without waiting for the lease"

    @KINDS
    async def test_a_refusal_waits_for_the_attempts_own_outcome(self, database, kind):
        case = await shipping(database, kind)
        attempt = await case.begin("book")
        await case.call_back("book", "failed")
        with pytest.raises(LeaseHeld):
            await case.hear()
        assert (await attempt.settle("acknowledged")).state == "waiting"
        await case.hear()
        effect = await case.effect("book")
        assert (effect.state, effect.outcome, effect.cause) == ("blocked", "failed", "rejected")

    @KINDS
    async def test_a_refusal_after_a_worker_died_is_its_outcome(self, database, kind):
        case = await shipping(database, kind)
        await case.begin("book")
        await case.call_back("book", "failed")
        await case.time_passes(LONG)
        answer = await case.run("book")
        assert (answer.state, (await case.effect("book")).outcome) == ("blocked", "failed")
        assert case.desk.partner.sent == []

    @KINDS
    async def test_after_a_lapse_the_next_attempt_takes_it_and_sends_nothing(self, database, kind):
        case = await shipping(database, kind)
        await case.begin("book")
        await case.call_back("book")
        await case.time_passes(LONG)
        assert (await case.run("book")).happened
        assert (case.desk.partner.sent, case.desk.partner.asked) == ([], [])

    async def test_an_unknown_outcome_of_a_stubborn_partner_is_cleared_up(self, database):
        case = await shipping(database)
        case.desk.partner.next(silent())
        assert (await case.run("book")).state == "blocked"
        await case.hears("book")
        assert (await case.run("book")).happened

    async def test_a_persons_word_that_it_did_not_happen_sends_nothing_over_a_stored_success(self, database):
        """They say `happened: false` while its success lies in the outbox: to send again would do it twice."""
        case = await shipping(database)
        case.desk.partner.next(silent())
        await case.run("book")
        await case.call_back("book")
        await case.override("retry", step="book", happened=False)
        assert (await case.run("book")).happened
        assert len(case.desk.partner.sent) == 1


class TestARefusalOfOneOfSeveralRequests:
    """A partner that takes each request by itself may speak of any of them."""

    async def test_proves_nothing_of_the_others(self, database):
        case = await shipping(database)
        case.desk.partner.next(silent(), acknowledged())
        await case.run("book")
        await case.override("retry", step="book", happened=False)
        await case.run("book")
        async with database.transaction() as session:
            await session.execute(text("UPDATE effects SET ruled_out_by = NULL WHERE case_id = :id"), {"id": case.id})
        await case.hears("book", "failed")
        effect = await case.effect("book")
        assert (effect.state, effect.outcome, effect.cause) == ("blocked", "unknown", "unknown")

    async def test_counts_where_a_person_ruled_out_the_other(self, database):
        case = await shipping(database)
        case.desk.partner.next(silent(), acknowledged())
        await case.run("book")
        await case.override("retry", step="book", happened=False)
        await case.run("book")
        await case.hears("book", "failed")
        assert (await case.effect("book")).outcome == "failed"

    async def test_counts_where_the_others_surely_failed(self, database):
        case = await shipping(database)
        case.desk.partner.next(transient(), acknowledged())
        await case.run("book")
        await case.time_passes(LONG)
        await case.run("book")
        await case.hears("book", "failed")
        effect = await case.effect("book")
        assert (effect.outcome, effect.cause) == ("failed", "rejected")

    async def test_is_no_contradiction_of_the_one_that_succeeded(self, database):
        case = await shipping(database)
        case.desk.partner.next(silent())
        await case.run("book")
        await case.override("retry", step="book", happened=False)
        await case.run("book")
        await case.hears("book", "failed")
        assert (await case.effect("book")).state == "settled"


class TestAfterPeopleDecided:
    async def test_success_of_a_skipped_step_is_taken_back_by_the_operation_in_flight(self, database):
        case = await waiting(database, STUBBORN, step("label"))
        await case.override("skip", step="book")
        assert not (await case.run("book")).happened
        await case.hears("book")
        effect = await case.effect("book")
        assert (effect.decision, effect.outcome, effect.standing) == ("skipped", "succeeded", True)
        assert not (await case.run("book")).happened, "a story that is told again goes on without it again"
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None
        assert (await case.row()).state == "shipped"

    async def test_success_after_mark_done_stands_beside_the_persons_result(self, database):
        case = await waiting(database)
        await case.override("mark_done", step="book", result={"number": "H1"})
        await case.hears("book")
        effect = await case.effect("book")
        assert (effect.decision, effect.outcome, effect.result) == ("marked_done", "succeeded", {"number": "H1"})
        assert (await case.finish()).state == "finished"

    @pytest.mark.parametrize("decision", ["skip", "mark_done"])
    async def test_a_refusal_stands_beside_their_decision(self, database, decision):
        case = await waiting(database)
        given = {"result": {"number": "H1"}} if decision == "mark_done" else {}
        await case.override(decision, step="book", **given)
        decided = await case.effect("book")
        await case.hears("book", "failed")
        effect = await case.effect("book")
        assert (effect.outcome, effect.decision, effect.state) == ("failed", decided.decision, "settled")
        assert (await case.finish()).state == "finished"

    async def test_success_after_a_refusal_that_was_skipped_is_not_lost(self, database):
        case = await shipping(database)
        case.desk.partner.next(rejected())
        await case.run("book")
        await case.override("skip", step="book")
        await case.run("book")
        await case.finish()
        await case.hears("book")
        assert (await case.operation()).actor_id == "system"
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None

    async def test_success_after_a_definite_failure_settles_a_blocked_step(self, database):
        case = await shipping(database)
        case.desk.partner.next(rejected())
        await case.run("book")
        await case.hears("book")
        assert (await case.run("book")).happened

    async def test_a_retry_that_waits_is_over_when_the_answer_is_there(self, database):
        case = await shipping(database)
        case.desk.partner.next(rejected())
        await case.run("book")
        retry = await case.override("retry", step="book")
        await case.hears("book")
        assert (await case.operation(retry.operation_id)).state == "completed"
        assert case.desk.partner.happened == []


class TestOfASupersededOperation:
    @KINDS
    async def test_the_new_operation_finds_out_and_takes_it_back(self, database, kind):
        case = await waiting(database, kind)
        await case.take("cancel", CHIEF)
        assert await case.work() == "waiting"
        await case.hears("book")
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None
        assert (await case.row()).state == "cancelled"

    @KINDS
    async def test_a_refusal_leaves_nothing_to_take_back(self, database, kind):
        case = await waiting(database, kind)
        await case.take("cancel", CHIEF)
        await case.work()
        await case.hears("book", "failed")
        assert await case.work() == "finished"
        effect = await case.effect("book")
        assert (effect.decision, effect.outcome, effect.standing) == ("voided", "failed", False)
        assert "book:undo" not in await case.effects()

    async def test_stored_before_the_takeover_it_is_taken_back_too(self, database):
        case = await waiting(database)
        await case.call_back("book")
        await case.take("cancel", CHIEF)
        await case.hear()
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None


class TestOnAClosedCase:
    async def closed(self, database, *steps) -> Handle:
        case = await waiting(database, *steps)
        await case.take("cancel", CHIEF)
        await case.run("book", settle_only=True)
        await case.override("skip", step="book")
        assert await case.work() == "finished"
        assert (await case.row()).final
        return case

    async def test_success_opens_its_compensation_as_an_operation_of_the_system(self, database):
        case = await self.closed(database)
        skipped = await case.effect("book")
        await case.hears("book")
        operation, row = await case.operation(), await case.row()
        assert (operation.actor_id, operation.name, operation.offsets) == ("system", "undo", [skipped.key])
        assert (row.state, row.condition, row.recovery_owner) == ("cancelled", "undoing", "front_desk")
        told = (await case.messages())[-1].payload
        assert (told["news"]["version"], told["news"]["final"]) == (row.version, False)
        effect = await case.effect("book")
        assert (effect.decision, effect.decided_by) == ("skipped", skipped.decided_by), (
            "their decision stands beside it"
        )
        assert await case.work() == "finished"
        effect, row = await case.effect("book"), await case.row()
        assert (effect.standing, effect.offset_at is not None, effect.step) == (False, True, "book")
        assert (row.state, row.final, row.condition, row.operation_id) == ("cancelled", True, "done", None)
        assert await case.chain_break() is None

    async def test_a_refusal_only_completes_the_picture(self, database):
        case = await self.closed(database)
        await case.hears("book", "failed")
        assert ((await case.effect("book")).outcome, (await case.row()).condition) == ("failed", "done")

    async def test_what_nothing_can_offset_blocks_for_its_owner(self, database):
        case = await waiting(database, step("book", partner="stubborn", undo=IMPOSSIBLE, owner="logistics"))
        await case.override("skip", step="book")
        await case.run("book")
        await case.finish()
        await case.hears("book")
        assert await case.work() == "blocked"
        document = await case.document()
        assert (document.condition, document.condition_info.recovery_owner) == ("blocked", "logistics")

    async def test_what_needs_no_undo_is_only_told(self, database):
        case = await waiting(database, step("book", partner="stubborn", undo=NONE_NEEDED))
        await case.take("cancel", CHIEF)
        await case.hears("book")
        row = await case.row()
        assert (row.state, row.condition) == ("cancelled", "done")
        assert "effect.landed_late" in await case.timeline()

    async def test_after_a_reopening_it_is_taken_back_beside_the_new_life(self, database):
        case = await self.closed(database)
        old = (await case.effect("book")).key
        await case.take("reopen")
        await case.take("ship")
        await case.run("book")
        new = (await case.effect("book")).key
        event = {"effect_key": old}
        await case.call_back("book", number="R9", **event)
        await case.hear()
        assert (await case.run("book", effect_key=new)).result == {"number": "R1"}, "the new one counts"
        assert await case.work() == "finished"
        assert case.desk.partner.sent[-1].key == f"{old}:undo"
        assert (await case.row()).state == "shipped"
        assert old != new

    async def test_an_answer_that_cannot_be_read_stays_with_the_outbox(self, database):
        case = await self.closed(database)
        before = await case.effect("book")
        await case.call_back("book", answer={"nothing": "of ours"})
        with pytest.raises(CallbackUnread):
            await case.hear()
        assert (await case.effect("book")).outcome == before.outcome
        assert len(await unheard(case)) == 1


class TestNever:
    async def test_a_partner_that_can_be_asked_is_asked(self, database):
        case = await waiting(database, ASKABLE)
        case.desk.partner._happen((await case.effect("book")).key, idempotent=False)
        await case.time_passes(timedelta(seconds=6))
        assert (await case.run("book")).happened

    async def test_a_partner_that_can_be_asked_is_asked_again_when_its_time_is_over(self, database):
        case = await waiting(database, ASKABLE)
        case.desk.partner._happen((await case.effect("book")).key, idempotent=False)
        await case.time_passes(LONG)
        assert (await case.run("book")).happened

    @KINDS
    async def test_at_the_deadline_it_blocks_for_the_owner(self, database, kind):
        case = await waiting(database, kind)
        await case.time_passes(LONG)
        answer, effect = await case.run("book"), await case.effect("book")
        assert (answer.state, effect.cause, effect.outcome) == ("blocked", "no_answer", "acknowledged")

    @KINDS
    async def test_a_callback_after_that_still_settles_it(self, database, kind):
        case = await waiting(database, kind)
        await case.time_passes(LONG)
        await case.run("book")
        await case.hears("book")
        assert (await case.run("book")).happened

    async def test_retry_repeats_the_key_where_the_partner_is_idempotent(self, database):
        case = await waiting(database, REPEATABLE)
        await case.time_passes(LONG)
        await case.run("book")
        await case.override("retry", step="book")
        assert (await case.run("book")).happened
        assert {sent.key for sent in case.desk.partner.sent} == {(await case.effect("book")).key}
        assert len(case.desk.partner.sent) == 2

    async def test_retry_sends_nothing_to_a_stubborn_partner_that_took_it(self, database):
        case = await waiting(database, STUBBORN)
        await case.time_passes(LONG)
        await case.run("book")
        await case.override("retry", step="book")
        assert (await case.run("book")).state == "waiting"
        assert len(case.desk.partner.sent) == 1


class TestWhatDoesNotAddUp:
    """It happened twice, or it happened and then did not: the step's owner has to look."""

    async def twice(self, database, *steps, finished: bool = True) -> Handle:
        case = await waiting(database, *(steps or (step("book", partner="stubborn", owner="logistics"),)))
        await case.hears("book", number="R1")
        await case.run("book")
        if finished:
            assert await case.work() == "finished"
        await case.hears("book", number="R2")
        return case

    async def test_blocks_a_finished_case_with_an_operation_of_the_system_and_names_the_owner(self, database):
        case = await self.twice(database)
        operation, effect, document = await case.operation(), await case.effect("book"), await case.document()
        assert (operation.actor_id, operation.state) == ("system", "accepted")
        assert (effect.state, effect.cause, effect.recovery_owner) == ("blocked", "happened_twice", "logistics")
        assert (effect.outcome, effect.standing, effect.result) == ("succeeded", True, {"number": "R1"})
        assert (document.state, document.condition) == ("shipped", "blocked")
        info = document.condition_info
        assert (info.recovery_owner, info.cause, info.step) == ("logistics", "happened_twice", "book")
        assert info.sentence == "The partner carrier did it twice: Book. Logistics decides."
        told = [entry.data["result"] for entry in await case.entries() if entry.type == "effect.happened_twice"]
        assert told == [{"number": "R2"}], "the timeline has both"
        shown = (await case.operation_document(operation.id)).steps
        assert [(each.name, each.state) for each in shown] == [("book", "blocked")]

    async def test_its_workflow_waits_for_the_owner(self, database):
        case = await self.twice(database)
        assert await case.work() == "blocked"
        assert (await case.finish()).state == "offsets"
        assert len(case.desk.partner.sent) == 1, "nothing is taken back before somebody looked"

    async def test_skip_leaves_it_as_it_is(self, database):
        case = await self.twice(database)
        skip = await case.override("skip", OPERATOR, step="book")
        assert await case.work() == "finished"
        effect, row = await case.effect("book"), await case.row()
        assert (effect.state, effect.decision, effect.standing) == ("settled", None, True)
        assert (row.state, row.condition) == ("shipped", "done")
        assert (await case.operation(skip.operation_id)).state == "completed"
        assert "effect.left_standing" in await case.timeline()
        assert [sent.key for sent in case.desk.partner.sent if sent.key.endswith(":undo")] == []

    async def test_mark_done_says_which_result_stands_and_undo_takes_that_back(self, database):
        case = await self.twice(database)
        await case.override("mark_done", SENIOR, step="book", result={"number": "R2"})
        assert await case.work() == "finished"
        assert (await case.effect("book")).result == {"number": "R2"}
        await case.override("undo")
        assert await case.work() == "finished"
        assert [sent.content for sent in case.desk.partner.sent if sent.key.endswith(":undo")] == [{"number": "R2"}]

    async def test_retry_is_refused_as_it_is_offered(self, database):
        case = await self.twice(database)
        offered = [a for a in (await case.document()).actions if a.name == "retry" and a.step == "book"]
        assert [(a.allowed, a.reasons[0].code) for a in offered] == [(False, "happened_already")]
        with pytest.raises(ActionNotAllowed, match="once more"):
            await case.override("retry", step="book")

    async def test_within_an_operation_its_end_waits_for_the_owner(self, database):
        case = await self.twice(
            database, step("book", partner="stubborn", owner="logistics"), step("label"), finished=False
        )
        assert (await case.operation()).name == "ship"
        assert (await case.run("label")).state == "settled", "the other steps go on"
        assert (await case.finish()).state == "offsets"
        await case.override("skip", step="book")
        assert not (await case.run("book", settle_only=True)).happened, "so nothing is taken back"
        assert await case.work() == "finished"
        assert (await case.row()).state == "shipped"

    async def test_who_takes_the_case_over_inherits_it(self, database):
        case = await self.twice(database)
        await case.override("force_cancel")
        assert await case.work() == "blocked"
        await case.override("mark_done", step="book", result={"number": "R1"})
        assert await case.work() == "finished"
        assert ((await case.row()).state, (await case.effect("book")).offset_at is not None) == ("cancelled", True)

    async def test_of_what_was_taken_back_meanwhile_blocks_as_well(self, database):
        """The second one still stands at the partner."""
        case = await waiting(database)
        await case.hears("book", number="R1")
        await case.take("cancel", CHIEF)
        assert await case.work() == "finished"
        await case.hears("book", number="R2")
        assert (await case.row()).condition == "blocked"
        await case.override("mark_done", step="book", result={"number": "R2"})
        assert await case.work() == "finished"
        effect = await case.effect("book")
        assert (effect.standing, (await case.row()).condition) == (False, "done")

    async def test_is_no_question_where_the_same_key_is_the_same_effect(self, database):
        case = await self.twice(database, REPEATABLE)
        assert (await case.row()).condition == "done"

    async def test_is_only_told_where_nothing_need_be_undone(self, database):
        case = await self.twice(database, step("book", partner="stubborn", undo=NONE_NEEDED))
        assert (await case.row()).condition == "done"
        assert "effect.happened_twice" in await case.timeline()

    @pytest.mark.parametrize("finished", [True, False])
    async def test_a_refusal_after_success_blocks_too(self, database, finished):
        case = await waiting(database)
        await case.hears("book")
        await case.run("book")
        if finished:
            await case.finish()
        await case.hears("book", "failed")
        effect = await case.effect("book")
        assert (effect.state, effect.cause, effect.outcome) == ("blocked", "contradicted", "succeeded")
        await case.override("skip", step="book")
        assert await case.work() == "finished"
        assert ((await case.effect("book")).outcome, (await case.row()).state) == ("succeeded", "shipped")

    async def test_a_second_success_by_plain_reply_blocks_too(self, database):
        """The frozen worker's request had arrived as well."""
        case = await shipping(database)
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        await case.run("book")
        await case.override("retry", step="book", happened=False)
        assert (await (await case.begin("book")).settle("succeeded")).happened
        answer = await frozen.settle("succeeded", result={"number": "R2"})
        assert (answer.state, (await case.effect("book")).cause) == ("blocked", "happened_twice")


class TestTheStoredRequest:
    """It is built once; what else happens in the case meanwhile does not change it."""

    def two(self, case: Handle) -> None:
        label, plain = case.desk.process.steps["label"], case.body

        def with_booking(name, direction):
            async def do(call):
                booked = call.standing(case.desk.process.steps["book"])
                return await call.send(case.desk.partner.repeatable, booking=booked.number if booked else None)

            return do if (name, direction) == (label.name, "do") else plain(name, direction)

        case.body = with_booking

    async def test_is_sent_again_unchanged_when_an_earlier_step_lands_late(self, database):
        case = await waiting(database, STUBBORN, step("label"))
        self.two(case)
        await case.override("skip", step="book")
        await case.run("book")
        case.desk.partner.next(transient())
        await case.run("label")
        await case.hears("book")
        await case.time_passes(LONG)
        assert (await case.run("label")).state == "settled"
        assert [sent.content for sent in case.desk.partner.sent[1:]] == [{"booking": None}] * 2

    async def test_is_sent_again_unchanged_when_a_person_corrects_an_earlier_result(self, database):
        case = await waiting(database, STUBBORN, step("label"))
        self.two(case)
        await case.hears("book", number="R1")
        await case.run("book")
        case.desk.partner.next(transient())
        await case.run("label")
        await case.hears("book", number="R2")
        await case.override("mark_done", step="book", result={"number": "R2"})
        await case.time_passes(LONG)
        assert (await case.run("label")).state == "settled"
        assert [sent.content for sent in case.desk.partner.sent[1:]] == [{"booking": "R1"}] * 2

    async def test_what_is_to_be_taken_back_counts_for_no_later_step(self, database):
        case = await waiting(database, STUBBORN, step("label"))
        self.two(case)
        await case.override("skip", step="book")
        await case.run("book")
        await case.hears("book")
        await case.run("label")
        assert case.desk.partner.sent[-1].content == {"booking": None}


class TestAnyOrder:
    async def test_of_reply_callbacks_and_decisions_ends_the_same(self, database, dice: random.Random):
        """One effect, one outcome, nothing left unheard, whatever comes first and how often."""
        for _ in range(12):
            case = await shipping(database, dice.choice([REPEATABLE, ASKABLE, STUBBORN]))
            attempt = await case.begin("book")
            event_id = f"evt-{case.id}"

            async def reply(attempt=attempt) -> StepAnswer:
                return await attempt.settle("acknowledged")

            async def call_back(case=case, event_id=event_id) -> None:
                await case.call_back("book", event_id=event_id)

            moves = [reply, reply, call_back, call_back, case.hear, case.hear]
            dice.shuffle(moves)
            said = await all_at_once(*[move() for move in moves])
            assert not [fault for fault in said if isinstance(fault, Exception)], said
            await call_back()
            await case.hear()
            effect = await case.effect("book")
            assert (effect.state, effect.outcome, effect.result) == ("settled", "succeeded", {"number": "R1"})
            assert await unheard(case) == []
            assert await case.chain_break() is None
            assert (await case.finish()).state == "finished"

    async def test_a_callback_races_a_takeover_and_nothing_stays_standing(self, database, dice: random.Random):
        for _ in range(12):
            case = await waiting(database, dice.choice([REPEATABLE, ASKABLE, STUBBORN]))
            moves = [case.take("cancel", CHIEF), case.hears("book"), asyncio.sleep(0)]
            dice.shuffle(moves)
            said = await all_at_once(*moves)
            assert not [fault for fault in said if isinstance(fault, Exception)], said
            assert await case.work() == "finished"
            row, effect = await case.row(), await case.effect("book")
            assert (row.state, effect.outcome, effect.standing) == ("cancelled", "succeeded", False)
            assert effect.offset_at is not None
