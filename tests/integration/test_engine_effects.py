"""The effect protocol, rule by rule (DESIGN section 5), on a real Postgres with a partner that follows a script."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from caseward.cases import effects
from caseward.cases.effects import LeaseHeld
from caseward.errors import InputInvalid, PartnerFailed
from caseward.process import NONE_NEEDED, Retry
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import (
    AT_ONCE,
    CHIEF,
    OPERATOR,
    SECONDS,
    SENIOR,
    SETTLING,
    LostReply,
    acknowledged,
    parcels,
    rejected,
    silent,
    step,
    transient,
)

REPEATABLE, ASKABLE, STUBBORN = step("book"), step("book", partner="askable"), step("book", partner="stubborn")
LONG = timedelta(hours=2)


async def shipping(database, *steps) -> Handle:
    """A case whose shipment was accepted and not begun."""
    case = await Desk(database, parcels(*(steps or (REPEATABLE,)))).open()
    await case.take("ship")
    return case


class TestReserve:
    async def test_the_first_one_begins_the_operation(self, database):
        case = await shipping(database)
        assert (await case.operation()).state == "accepted"
        await case.begin("book")
        assert (await case.operation()).state == "running"
        assert (await case.operation()).started_at is not None
        assert (await case.document()).condition == "running"

    async def test_the_request_is_stored_before_anything_is_sent(self, database):
        case = await shipping(database)
        stored = []

        async def look() -> None:
            stored.append((await case.effect("book")).request)

        case.desk.partner.next(look)
        await case.run("book")
        assert stored[0]["call"] == "repeatable"
        assert stored[0]["arguments"]["to"] == "Oslo"

    async def test_a_settled_effect_answers_again_and_sends_nothing(self, database):
        case = await shipping(database)
        first = await case.run("book")
        before = await case.dump()
        second = await case.run("book")
        assert (second.state, second.happened, second.result) == ("settled", True, first.result)
        assert len(case.desk.partner.sent) == 1
        assert await case.dump() == before

    async def test_a_takeover_stops_what_was_not_reserved_yet(self, database):
        case = await shipping(database, step("book"), step("label"))
        await case.run("book")
        old = await case.call("label")
        await case.take("cancel")
        answer = await case.run("label", call=old)
        assert answer.state == "superseded"
        assert "label" not in await case.effects()
        assert [sent.key for sent in case.desk.partner.sent] == [(await case.effect("book")).key]

    async def test_an_older_operation_never_begins_a_step_of_a_newer_one(self, database):
        case = await shipping(database)
        old = await case.call("book")
        await case.override("undo")
        await case.take("ship")
        assert (await case.run("book", call=old)).state == "superseded"
        assert await case.effects() == {}

    async def test_a_live_lease_is_not_waited_for(self, database):
        case = await shipping(database)
        await case.begin("book")
        with pytest.raises(LeaseHeld) as held:
            await case.run("book")
        assert timedelta(0) < held.value.remaining <= SECONDS + effects.LEASE_MARGIN
        assert case.desk.partner.sent == []

    async def test_the_lease_is_no_attempt_for_who_finds_it_held(self, database):
        case = await shipping(database)
        await case.begin("book")
        before = await case.dump()
        with pytest.raises(LeaseHeld):
            await case.run("book")
        assert await case.dump() == before

    async def test_two_workers_at_once_make_one_attempt(self, database):
        case = await shipping(database)
        call = await case.call("book")
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            entered.set()
            await go_on.wait()

        case.desk.partner.next(hold)
        first = asyncio.create_task(case.run("book", call=call))
        await entered.wait()
        with pytest.raises(LeaseHeld):
            await case.run("book", call=call)
        go_on.set()
        assert (await first).state == "settled"
        assert len(case.desk.partner.happened) == 1

    async def test_the_request_of_a_revised_parcel_is_the_operations_own(self, database):
        case = await Desk(database, parcels(REPEATABLE)).open()
        await case.take("ship_corrected", parcel={"to": "Bergen"})
        await case.run("book")
        assert case.desk.partner.sent[0].content["to"] == "Bergen"
        assert (await case.document()).subject["to"] == "Oslo", "until it is completed"

    async def test_other_content_under_the_same_key_blocks_as_invalid(self, database):
        case = await shipping(database)
        case.desk.partner.next(transient())
        await case.run("book")
        await case.time_passes(LONG)
        case.desk.process = replace(case.desk.process)
        body = case.body

        def another_body(name, direction):
            async def do(call):
                return await call.send(case.desk.partner.repeatable, to="Elsewhere")

            return do if name == "book" else body(name, direction)

        case.body = another_body
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.cause, effect.recovery_owner) == ("blocked", "invalid", "engineering")
        assert len(case.desk.partner.sent) == 1
        assert effect.request["arguments"]["to"] == "Oslo"


class TestLapsedLease:
    """A worker was killed between reserve and settle: nobody knows how far it got."""

    async def test_is_an_unknown_outcome(self, database):
        case = await shipping(database, STUBBORN)
        await case.begin("book")
        await case.time_passes(LONG)
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.outcome, effect.cause) == ("blocked", "unknown", "unknown")
        assert [attempt.outcome for attempt in await case.attempts("book")] == ["unknown"]
        assert "effect.outcome_unknown" in await case.timeline()

    async def test_is_repeated_under_the_same_key_where_the_partner_is_idempotent(self, database):
        case = await shipping(database, REPEATABLE)
        attempt = await case.begin("book")
        await case.time_passes(LONG)
        assert (await case.run("book")).state == "settled"
        assert [sent.key for sent in case.desk.partner.sent] == [attempt.call.effect_key]

    async def test_what_its_worker_learns_later_counts_if_it_is_success(self, database):
        case = await shipping(database, STUBBORN)
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        await case.run("book")
        answer = await frozen.settle("succeeded")
        assert (answer.state, answer.happened) == ("settled", True)
        assert [attempt.outcome for attempt in await case.attempts("book")] == ["succeeded"]
        assert (await case.document()).condition == "running", "the story goes on"

    async def test_what_its_worker_learns_later_does_not_disturb_the_next_attempt(self, database):
        case = await shipping(database, ASKABLE)
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        second = await case.begin("book")
        await frozen.settle("rejected")
        effect = await case.effect("book")
        assert (effect.state, effect.outcome) == ("running", "unknown")
        assert (await second.settle("succeeded")).happened


class TestUnknown:
    async def test_a_lost_reply_of_an_idempotent_partner_is_made_good_by_the_same_key(self, database):
        case = await shipping(database, REPEATABLE)
        case.desk.partner.next(LostReply())
        first = await case.run("book")
        assert (first.state, (await case.effect("book")).outcome) == ("retrying", "unknown")
        await case.time_passes(LONG)
        assert (await case.run("book")).state == "settled"
        keys = {sent.key for sent in case.desk.partner.sent}
        assert (len(case.desk.partner.sent), len(keys), len(case.desk.partner.happened)) == (2, 1, 1)

    async def test_a_partner_that_can_be_asked_is_asked_first(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(LostReply())
        await case.run("book")
        await case.time_passes(LONG)
        answer = await case.run("book")
        assert (answer.state, answer.result) == ("settled", {"number": "R1"})
        assert len(case.desk.partner.asked) == 1
        assert len(case.desk.partner.sent) == 1, "it had happened, so nothing was sent again"

    async def test_not_found_proves_nothing_before_the_partners_settling_time(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(silent())
        await case.run("book")
        await case.time_passes(timedelta(seconds=1.5))  # the first wait is 1 s, the partner's settling time longer
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.outcome, effect.error["code"]) == ("retrying", "unknown", "not_found_yet")
        assert len(case.desk.partner.sent) == 1
        assert effect.next_attempt_at == effect.maybe_sent_until + SETTLING

    async def test_not_found_after_it_lets_the_partner_be_told_again(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(silent())
        await case.run("book")
        await case.time_passes(LONG)
        assert (await case.run("book")).state == "settled"
        assert (len(case.desk.partner.asked), len(case.desk.partner.sent), len(case.desk.partner.happened)) == (1, 2, 1)

    async def test_asking_that_fails_leaves_it_unknown(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(LostReply())
        await case.run("book")
        await case.time_passes(LONG)
        case.desk.partner.probe_says = PartnerFailed("transient", "unreachable", "Not reachable.")
        await case.run("book")
        assert (await case.effect("book")).outcome == "unknown"
        case.desk.partner.probe_says = None
        await case.time_passes(LONG)
        assert (await case.run("book")).state == "settled"
        assert len(case.desk.partner.happened) == 1

    async def test_neither_idempotent_nor_to_be_asked_blocks_and_is_never_repeated(self, database):
        case = await shipping(database, STUBBORN)
        case.desk.partner.next(LostReply())
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.cause, effect.outcome) == ("blocked", "unknown", "unknown")
        await case.time_passes(LONG)
        assert (await case.run("book")).state == "blocked"
        assert len(case.desk.partner.sent) == 1

    async def test_retry_and_skip_of_it_need_somebodys_word_that_it_did_not_happen(self, database):
        case = await shipping(database, STUBBORN)
        case.desk.partner.next(silent())
        await case.run("book")
        for override in ("retry", "skip"):
            with pytest.raises(InputInvalid, match="happened: false"):
                await case.override(override, step="book")
            with pytest.raises(InputInvalid, match="mark it as done"):
                await case.override(override, step="book", happened=True)
        await case.override("retry", step="book", happened=False)
        assert (await case.run("book")).state == "settled"
        assert len(case.desk.partner.happened) == 1
        assert "effect.ruled_out" in await case.timeline()

    async def test_a_word_that_it_did_not_happen_ends_with_the_next_unknown_outcome(self, database):
        case = await shipping(database, STUBBORN)
        case.desk.partner.next(silent(), silent())
        await case.run("book")
        await case.override("retry", step="book", happened=False)
        await case.run("book")
        with pytest.raises(InputInvalid, match="happened: false"):
            await case.override("retry", step="book")

    @pytest.mark.parametrize("answer", [transient("unreachable"), PartnerFailed("unauthorized", "http_401", "Who?")])
    async def test_a_failed_repetition_says_nothing_of_the_first_request(self, database, answer):
        """The second request did not get through; the first one may have."""
        case = await shipping(database)
        case.desk.partner.next(LostReply(), answer)
        await case.run("book")
        await case.time_passes(timedelta(seconds=1))
        await case.run("book")
        assert (await case.effect("book")).outcome == "unknown"
        await case.take("cancel", CHIEF)
        assert await case.work() == "finished"
        taken_back = [key for key in case.desk.partner.happened if key.endswith(":undo")]
        assert len(taken_back) == 1, "what had happened was found out and taken back"


class TestFailed:
    async def test_a_burst_of_waits_then_blocked_for_the_steps_owner(self, database):
        case = await shipping(database, step("book", owner="logistics", retry=Retry(waits=(timedelta(seconds=1),) * 2)))
        case.desk.partner.next(*[transient() for _ in range(3)])
        states = []
        for _ in range(3):
            states.append((await case.run("book")).state)
            await case.time_passes(LONG)
        effect = await case.effect("book")
        assert states == ["retrying", "retrying", "blocked"]
        assert (effect.cause, effect.recovery_owner, effect.attempt_count) == ("exhausted", "logistics", 3)
        document = await case.document()
        assert (document.condition, document.condition_info.recovery_owner) == ("blocked", "logistics")
        assert document.condition_info.sentence == "The partner carrier kept failing: Book. Logistics decides."

    async def test_nothing_is_sent_before_the_next_attempt_is_due(self, database):
        case = await shipping(database, step("book", retry=Retry(waits=(timedelta(hours=1),))))
        case.desk.partner.next(transient())
        first = await case.run("book")
        early = await case.run("book")
        assert early.state == "retrying"
        assert 0 < early.delay <= first.delay <= 3600
        assert len(case.desk.partner.sent) == 1

    async def test_a_partner_may_ask_for_more_patience_than_we_declared(self, database):
        case = await shipping(database)
        case.desk.partner.next(PartnerFailed("transient", "busy", "Later.", retry_after=timedelta(minutes=3)))
        answer = await case.run("book")
        assert 179 < answer.delay <= 180

    @pytest.mark.parametrize("error_class", ["rejected", "unauthorized", "invalid"])
    async def test_what_waiting_cannot_mend_blocks_at_once(self, database, error_class):
        case = await shipping(database)
        case.desk.partner.next(PartnerFailed(error_class, "no", "No."))
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.cause, effect.outcome) == ("blocked", error_class, "failed")

    async def test_blocking_stands_in_the_timeline_with_who_decides(self, database):
        case = await shipping(database, step("book", owner="logistics"))
        case.desk.partner.next(rejected())
        await case.run("book")
        blocked = [entry for entry in await case.entries() if entry.type == "effect.blocked"]
        assert [(entry.data["cause"], entry.data["recovery_owner"]) for entry in blocked] == [("rejected", "logistics")]

    async def test_a_declared_undo_takes_the_operation_back(self, database):
        case = await shipping(database, step("book"), step("insure", exhausted="undo", retry=AT_ONCE))
        await case.run("book")
        case.desk.partner.next(transient())
        assert (await case.run("insure")).state == "superseded"
        operation = await case.operation()
        assert (operation.kind, operation.name, operation.actor_id) == ("override", "undo", "system")
        assert await case.work() == "finished"
        assert (await case.row()).state == "draft"
        assert [key.split(":", 1)[1] for key in case.desk.partner.happened] == ["book", "book:undo"]

    async def test_a_declared_proceed_goes_on_without(self, database):
        case = await shipping(database, step("book"), step("decorate", exhausted="proceed", retry=AT_ONCE))
        await case.run("book")
        case.desk.partner.next(rejected())
        answer = await case.run("decorate")
        assert (answer.state, answer.happened) == ("settled", False)
        assert (await case.effect("decorate")).decision == "given_up"
        assert (await case.finish()).state == "finished"
        assert (await case.row()).state == "shipped"

    @pytest.mark.parametrize("undo", [NONE_NEEDED, None])
    async def test_nobody_need_know_what_a_mail_that_the_story_does_without_came_to(self, database, undo):
        letter = step("decorate", partner="stubborn", exhausted="proceed", undo=undo)
        case = await shipping(database, step("book"), letter)
        await case.run("book")
        case.desk.partner.next(LostReply())
        answer, effect = await case.run("decorate"), await case.effect("decorate")
        # What somebody may have to take back is another matter: that its owner has to find out.
        expected = ("settled", "given_up") if undo is NONE_NEEDED else ("blocked", None)
        assert (answer.state, effect.decision, effect.outcome) == (*expected, "unknown")
        assert len(case.desk.partner.sent) == 2, "nothing is sent again blindly"

    async def test_nor_what_one_came_to_whose_worker_died(self, database):
        letter = step("decorate", partner="stubborn", exhausted="proceed", undo=NONE_NEEDED)
        case = await shipping(database, step("book"), letter)
        await case.run("book")
        await case.begin("decorate")  # and its worker is killed
        await case.time_passes(LONG)
        answer, effect = await case.run("decorate"), await case.effect("decorate")
        assert (answer.state, effect.decision, effect.outcome) == ("settled", "given_up", "unknown")

    @pytest.mark.parametrize("by", ["undo in flight", "undo", "force_cancel"])
    async def test_what_was_given_up_unknown_is_found_out_when_it_is_to_be_taken_back(self, database, by):
        desk = Desk(
            database, parcels(step("book"), step("decorate", partner="askable", exhausted="proceed", retry=AT_ONCE))
        )
        case = await desk.open()
        await case.take("ship")
        await case.run("book")
        desk.partner.next(LostReply())
        answer = await case.run("decorate")
        assert (answer.state, (await case.effect("decorate")).decision) == ("settled", "given_up")
        if by != "undo in flight":
            await case.finish()
        if by == "force_cancel":
            await case.take("take_back")
        await case.time_passes(LONG)
        await case.override(by.removesuffix(" in flight"), SENIOR)
        assert await case.work() == "finished"
        happened = [key.split(":", 1)[1] for key in desk.partner.happened]
        assert happened == ["book", "decorate", "decorate:undo", "book:undo"]

    async def test_our_own_fault_before_sending_blocks_for_engineering(self, database):
        case = await shipping(database, step("book", owner="logistics"))

        async def broken(call):
            raise KeyError("weight")

        case.body = lambda *_: broken
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.cause, effect.recovery_owner) == ("blocked", "code_error", "engineering")
        assert case.desk.partner.sent == []

    async def test_our_own_fault_after_sending_is_an_unknown_outcome_for_engineering(self, database):
        case = await shipping(database)

        async def broken(call):
            await call.send(case.desk.partner.repeatable, to="Oslo")
            raise KeyError("number")

        case.body = lambda *_: broken
        await case.run("book")
        effect = await case.effect("book")
        assert (effect.outcome, effect.cause, effect.recovery_owner) == ("unknown", "code_error", "engineering")

    async def test_a_stored_subject_that_does_not_fit_any_more_blocks_for_engineering(self, database):
        """The declaration became stricter while the case was open; an activity that raises would only be retried."""
        case = await shipping(database)

        class Stricter(case.desk.process.subject):
            customs_number: str

        process = replace(case.desk.process, subject=Stricter)
        case.desk = Desk(database, process, case.desk.partner)
        answer = await case.run("book")
        assert (answer.state, (await case.effect("book")).cause) == ("blocked", "code_error")
        assert case.desk.partner.sent == []


class TestRetry:
    async def test_makes_the_next_attempt_due_with_a_fresh_burst(self, database):
        case = await shipping(database, step("book", retry=Retry(waits=(timedelta(minutes=1),))))
        case.desk.partner.next(transient(), transient(), transient())
        await case.run("book")
        retry = await case.override("retry", OPERATOR, step="book")
        assert (await case.operation(retry.operation_id)).state == "accepted", "until its attempt has an outcome"
        assert (await case.run("book")).state == "retrying"
        assert (await case.operation(retry.operation_id)).state == "completed"

    async def test_two_retries_of_one_attempt_both_end_with_it(self, database):
        case = await shipping(database, step("book", retry=Retry(waits=(timedelta(minutes=1),))))
        case.desk.partner.next(transient())
        await case.run("book")
        twice = [await case.override("retry", OPERATOR, step="book") for _ in range(2)]
        await case.run("book")
        assert [(await case.operation(each.operation_id)).state for each in twice] == ["completed", "completed"]

    @pytest.mark.parametrize("fault", ["the request changed", "our code fails", "no answer came"])
    async def test_is_completed_also_where_no_attempt_could_be_made(self, database, fault):
        case = await shipping(database)
        body = case.body
        if fault == "no answer came":
            case.desk.partner.next(acknowledged())
            await case.run("book")
            await case.time_passes(LONG)
            await case.run("book")
        else:
            case.desk.partner.next(rejected())
            await case.run("book")

        async def changed(call):
            return await call.send(case.desk.partner.repeatable, to="Elsewhere")

        async def broken(call):
            raise KeyError("weight")

        bodies = {"the request changed": changed, "our code fails": broken}
        case.body = lambda name, direction: bodies.get(fault) or body(name, direction)
        retry = await case.override("retry", step="book")
        await case.run("book")
        assert (await case.operation(retry.operation_id)).state == "completed"


class TestAcknowledged:
    """The partner will do it later."""

    async def test_waits_on_the_partner_until_the_steps_own_deadline(self, database):
        case = await shipping(database, step("book", partner="askable", answer_within=timedelta(minutes=10)))
        case.desk.partner.next(acknowledged())
        assert (await case.run("book")).state == "waiting"
        document = await case.document()
        assert (document.condition, document.condition_info.waiting_on) == ("waiting", "carrier")
        assert document.condition_info.deadline_at == (await case.effect("book")).answer_by

    async def test_is_asked_now_and_then_and_succeeds_when_the_partner_has_done_it(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(acknowledged())
        answer = await case.run("book")
        assert 0 < answer.delay <= 5
        await case.time_passes(timedelta(seconds=6))
        assert (await case.run("book")).state == "waiting", "it knows nothing yet, and that is no news"
        case.desk.partner._happen((await case.effect("book")).key, idempotent=False)
        await case.time_passes(timedelta(seconds=6))
        answer = await case.run("book")
        assert (answer.state, answer.happened) == ("settled", True)
        assert len(case.desk.partner.sent) == 1

    async def test_asking_that_fails_is_still_waiting(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(acknowledged())
        await case.run("book")
        case.desk.partner.probe_says = silent()
        for _ in range(5):
            await case.time_passes(timedelta(seconds=6))
            assert (await case.run("book")).state == "waiting"
        assert (await case.effect("book")).outcome == "acknowledged"

    async def test_a_partner_that_is_never_heard_of_again_blocks_at_the_deadline(self, database):
        case = await shipping(database, REPEATABLE)
        case.desk.partner.next(acknowledged())
        await case.run("book")
        await case.time_passes(LONG)
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.cause, effect.outcome) == ("blocked", "no_answer", "acknowledged")
        assert len(case.desk.partner.sent) == 1

    async def test_retry_after_that_asks_the_partner_again(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(acknowledged())
        await case.run("book")
        await case.time_passes(LONG)
        await case.run("book")
        case.desk.partner._happen((await case.effect("book")).key, idempotent=False)
        await case.override("retry", step="book")
        assert (await case.run("book")).state == "settled"

    async def test_never_replaces_an_outcome(self, database):
        case = await shipping(database, ASKABLE)
        attempt = await case.begin("book")
        await attempt.settle("succeeded")
        await attempt.settle("acknowledged")
        effect = await case.effect("book")
        assert (effect.state, effect.outcome) == ("settled", "succeeded")

    async def test_is_refused_for_good_by_the_probes_answer(self, database):
        case = await shipping(database, ASKABLE)
        case.desk.partner.next(acknowledged())
        await case.run("book")
        case.desk.partner.probe_says = rejected()
        await case.time_passes(timedelta(seconds=6))
        answer = await case.run("book")
        effect = await case.effect("book")
        assert (answer.state, effect.outcome, effect.cause) == ("blocked", "failed", "rejected")


class TestNewsOnlyMovesForward:
    @pytest.mark.parametrize("late", ["unknown", "transient", "rejected", "acknowledged", "code_error"])
    async def test_a_success_stays_one(self, database, late):
        case = await shipping(database)
        attempt = await case.begin("book")
        await attempt.settle("succeeded")
        before = await case.effect("book")
        await attempt.settle(late)
        after = await case.effect("book")
        assert (after.state, after.outcome, after.standing) == (before.state, before.outcome, before.standing)

    @pytest.mark.parametrize("late", ["unknown", "transient", "rejected", "acknowledged"])
    @pytest.mark.parametrize("decision", ["skip", "mark_done"])
    async def test_a_persons_decision_stays_one(self, database, decision, late):
        case = await shipping(database, ASKABLE)
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        again = await case.begin("book")
        await again.settle("unknown")
        given = {"happened": False} if decision == "skip" else {"result": {"number": "H1"}}
        await case.override(decision, step="book", **given)
        decided = (await case.effect("book")).decision
        await frozen.settle(late)
        await again.settle(late)
        effect = await case.effect("book")
        assert (effect.state, effect.decision) == ("settled", decided)

    async def test_success_after_mark_done_stands_beside_the_persons_result(self, database):
        case = await shipping(database, STUBBORN)
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        await case.run("book")
        await case.override("mark_done", step="book", result={"number": "H1"})
        await frozen.settle("succeeded")
        effect = await case.effect("book")
        assert (effect.decision, effect.outcome, effect.result) == ("marked_done", "succeeded", {"number": "H1"})
        assert (await case.run("book")).result == {"number": "H1"}


class TestLateLanding:
    """Success is reported for what was given up: it is taken back, on closed cases too."""

    async def given_up(self, database, how: str) -> tuple[Handle, object]:
        case = await shipping(database, step("book", partner="stubborn"), step("label"))
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        await case.run("book")
        if how == "skipped":
            await case.override("skip", step="book", happened=False)
            await case.run("book")
        else:
            await case.take("cancel")
            await case.run("book", settle_only=True)
            await case.override("skip", step="book", happened=False)
        return case, frozen

    async def test_of_a_skipped_step_the_operation_in_flight_takes_it_back(self, database):
        case, frozen = await self.given_up(database, "skipped")
        await frozen.settle("succeeded")
        assert "effect.landed_late" in await case.timeline()
        await case.run("label")
        offsets = await case.finish()
        assert (offsets.state, [offset.step for offset in offsets.offsets]) == ("offsets", ["book"])
        await case.run("book:undo")
        assert (await case.finish()).state == "finished"
        assert (await case.effect("book")).offset_at is not None

    async def test_on_a_closed_case_the_system_opens_an_operation_of_its_own(self, database):
        case, frozen = await self.given_up(database, "cancelled")
        assert await case.work() == "finished"
        assert (await case.row()).final
        await frozen.settle("succeeded")
        operation = await case.operation()
        assert (operation.actor_id, operation.state, (await case.row()).state) == ("system", "accepted", "cancelled")
        accepted = [e for e in await case.entries() if e.operation_id == operation.id]
        assert [entry.type for entry in accepted] == ["operation.accepted"], "it tells who, why and when"
        assert (await case.messages())[-1].operation_id == operation.id, "and the workflow is told"
        assert await case.work() == "finished"
        assert (await case.effect("book")).offset_at is not None
        row = await case.row()
        assert (row.state, row.final, row.condition) == ("cancelled", True, "done")

    async def test_is_told_under_the_operation_it_belongs_to(self, database):
        case, frozen = await self.given_up(database, "cancelled")
        cancel = await case.operation()
        await case.work()
        await case.take("reopen")
        await case.take("ship")
        await frozen.settle("succeeded")
        late = [entry for entry in await case.entries() if entry.type == "effect.landed_late"]
        assert [entry.operation_id for entry in late] == [cancel.id]

    async def test_of_what_nothing_can_offset_blocks_for_the_recovery_owner(self, database):
        from caseward.process import IMPOSSIBLE

        case = await shipping(database, step("book", partner="stubborn", undo=IMPOSSIBLE, owner="logistics"))
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        await case.run("book")
        await case.override("skip", step="book", happened=False)
        await case.run("book")
        await case.finish()
        await frozen.settle("succeeded")
        await case.run("book:undo")
        blocked = await case.effect("book:undo")
        assert (blocked.state, blocked.cause, blocked.recovery_owner) == ("blocked", "no_compensation", "logistics")

    async def test_what_the_business_itself_refuses_to_send_is_its_owners(self, database):
        case = await shipping(database, step("book", owner="logistics"))

        async def refuse(_call) -> None:
            raise PartnerFailed("rejected", "money_is_out", "It was never recalled.")

        await case.desk.runner.run(case.desk.process, refuse, await case.call("book"))
        blocked = await case.effect("book")
        assert (blocked.state, blocked.cause, blocked.recovery_owner) == ("blocked", "rejected", "logistics")
        assert (blocked.error["code"], case.desk.partner.sent) == ("money_is_out", [])

    @pytest.mark.parametrize(("number", "twice"), [("R2", True), ("R1", False)])
    async def test_a_second_success_with_another_answer_is_told_to_the_owner(self, database, number, twice):
        """The frozen worker's request had arrived as well: it happened twice, and only people can mend that."""
        case = await shipping(database, step("book", partner="stubborn", owner="logistics"))
        frozen = await case.begin("book")
        await case.time_passes(LONG)
        await case.run("book")
        await case.override("retry", step="book", happened=False)
        again = await case.begin("book")
        await again.settle("succeeded")
        await frozen.settle("succeeded", result={"number": number})
        told = [entry.data["recovery_owner"] for entry in await case.entries() if entry.type == "effect.happened_twice"]
        assert told == (["logistics"] if twice else [])
        assert (await case.effect("book")).result == {"number": "R1"}


class TestSkipAndMarkDone:
    async def test_are_refused_while_a_lease_lives(self, database):
        case = await shipping(database)
        await case.begin("book")
        for override, given in (("skip", {}), ("mark_done", {"result": {"number": "H1"}}), ("retry", {})):
            with pytest.raises(Exception, match="attempt is under way"):
                await case.override(override, step="book", **given)

    async def test_skip_goes_on_without_and_is_completed_when_the_story_did(self, database):
        case = await shipping(database, step("book"), step("label"))
        case.desk.partner.next(rejected())
        await case.run("book")
        skip = await case.override("skip", OPERATOR, step="book")
        answer = await case.run("book")
        assert (answer.state, answer.happened, answer.result) == ("settled", False, None)
        assert (await case.operation(skip.operation_id)).state == "completed"
        await case.run("label")
        assert (await case.finish()).state == "finished"

    async def test_mark_done_gives_the_story_the_persons_result(self, database):
        case = await shipping(database)
        case.desk.partner.next(rejected())
        await case.run("book")
        with pytest.raises(InputInvalid) as refused:
            await case.override("mark_done", step="book", result={"number": 7, "extra": True})
        assert {error["field"] for error in refused.value.members["errors"]} == {"result.number", "result.extra"}
        await case.override("mark_done", step="book", result={"number": "H1"})
        answer = await case.run("book")
        assert (answer.state, answer.happened, answer.result) == ("settled", True, {"number": "H1"})

    async def test_what_was_marked_done_is_taken_back_like_what_was_done(self, database):
        case = await shipping(database, step("book"), step("label"))
        case.desk.partner.next(rejected())
        await case.run("book")
        await case.override("mark_done", step="book", result={"number": "H1"})
        await case.override("undo", SENIOR)
        assert await case.work() == "finished"
        assert [sent.content for sent in case.desk.partner.sent if sent.key.endswith(":undo")] == [{"number": "H1"}]
