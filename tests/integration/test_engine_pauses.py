"""Pauses of cases, processes and partners: what they hold up, what passes them, how they end, and the breaker."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select, text

from caseward.cases import breaker, pausing
from caseward.cases.pauses import holds_of, partner_key, process_key
from caseward.cases.resuming import Resuming
from caseward.db.tables import Pause, PauseChange
from caseward.documents.pauses import PauseDocument
from caseward.errors import ActionNotAllowed, IdempotencyKeyReused
from caseward.messages import StepAnswer
from tests.integration.desk import Begun, Desk, Handle, all_at_once, envelope
from tests.integration.parcels import (
    AT_ONCE,
    BOOK,
    CHIEF,
    CLERK,
    LABEL,
    OPERATOR,
    SENIOR,
    LostReply,
    parcels,
    person,
    rejected,
    step,
    transient,
)

HOUR = timedelta(hours=1)
BOTH = step("insure", partner="both", owner="logistics")


class Yard:
    """A desk whose pauses can be worked by a person and by the chore."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.resuming = Resuming(desk.database, desk.catalogue)

    async def shipping(self) -> Handle:
        case = await self.desk.open()
        await case.take("ship")
        return case

    async def pause(self, actor=OPERATOR, *, key: str | None = None, **given: Any) -> PauseDocument:
        wanted = {"process": None, "partner": None, "reason": "Agreed by phone", "deadlines": "running"} | given
        async with self.desk.database.transaction() as session:
            return await pausing.request_pause(session, self.desk.catalogue, envelope=envelope(actor, key), **wanted)

    async def resume(self, pause: PauseDocument, actor=OPERATOR, *, rate: int = 1000) -> PauseDocument:
        async with self.desk.database.transaction() as session:
            return await pausing.request_resume(
                session,
                self.desk.catalogue,
                pause_id=pause.pause_id,
                reason="They are back",
                rate=rate,
                envelope=envelope(actor),
            )

    async def row(self, key: str) -> Pause:
        async with self.desk.database.transaction() as session:
            return await session.get_one(Pause, key)

    async def until_open(self, key: str) -> None:
        """Resume until all are through: at a limited rate that takes its time, however fast the machine."""
        async with asyncio.timeout(60):
            while (await self.row(key)).state != "open":
                await self.resuming()

    async def later(self, key: str, by: timedelta) -> None:
        """Time passes for a pause."""
        columns = ("since", "frozen_since", "probe_at")
        changes = ", ".join(f"{column} = {column} - :by" for column in columns)
        async with self.desk.database.transaction() as session:
            await session.execute(
                text(
                    f"UPDATE pauses SET {changes}, failing = coalesce((SELECT jsonb_agg("
                    "jsonb_set(f, '{at}', to_jsonb((f->>'at')::timestamptz - :by))) "
                    "FROM jsonb_array_elements(failing) AS f), '[]') WHERE key = :key"
                ),
                {"by": by, "key": key},
            )

    async def changes(self, key: str) -> list[tuple[str, str]]:
        async with self.desk.database.transaction() as session:
            rows = await session.scalars(select(PauseChange).where(PauseChange.key == key).order_by(PauseChange.number))
            return [(row.state, row.actor_id) for row in rows]


@pytest_asyncio.fixture(loop_scope="session")
async def yard(database) -> AsyncIterator[Yard]:
    yield Yard(Desk(database, parcels(BOOK, LABEL, BOTH)))


def shifted(before, after) -> float:
    return (after - before).total_seconds()


class TestACasesOwn:
    async def test_holds_up_the_next_step_until_it_is_resumed(self, yard: Yard):
        case = await yard.shipping()
        assert (await case.run("book_carrier")).state == "settled"
        paused = await case.override("pause", OPERATOR)
        assert (await case.operation(paused.operation_id)).state == "completed"
        assert (await case.run("print_label")).state == "paused"
        document = await case.document()
        assert (document.condition, document.condition_info.recovery_owner) == ("paused", "operator")
        assert (document.condition_info.by, document.condition_info.reason) == (OPERATOR.id, "Agreed by phone")
        await case.override("resume", OPERATOR)
        effect = await case.effect("print_label")
        assert (effect.state, effect.paused_by, effect.attempt_count) == ("retrying", None, 0)
        nudges = [message.payload["order"] for message in await case.messages() if message.payload["order"]]
        assert (nudges[-1]["step"], nudges[-1]["takes_over"]) == ("print_label", False)
        assert await case.work() == "finished"
        types = await case.timeline()
        told = [t for t in types if t in {"case.paused", "effect.paused", "effect.resumed", "case.resumed"}]
        assert told == ["case.paused", "effect.paused", "case.resumed", "effect.resumed"]

    async def test_refuses_transitions_and_retry_and_lets_recovery_through(self, yard: Yard):
        case = await yard.shipping()
        yard.desk.partner.next(rejected())
        await case.run("book_carrier")
        await case.override("pause", OPERATOR)
        allowed = {a.name for a in (await case.document(SENIOR)).actions if a.kind == "override" and a.allowed}
        assert allowed == {"skip", "mark_done", "undo", "force_cancel", "resume"}
        for attempt in (case.take("cancel"), case.override("retry"), case.override("pause")):
            with pytest.raises(ActionNotAllowed) as refused:
                await attempt
            assert refused.value.first_code in {"paused", "already_paused"}
            assert refused.value.http_status == 409
        await case.override("undo")
        assert (await case.row()).state == "draft", "what was refused needs no taking back"

    async def test_a_step_that_was_never_sent_is_voided_at_once_by_a_takeover(self, yard: Yard):
        case = await yard.shipping()
        await case.override("pause", OPERATOR)
        await case.run("book_carrier")
        await case.override("force_cancel")
        assert (await case.row()).state == "cancelled", "nothing was ever sent, so nothing is to be found out"
        assert (await case.effect("book_carrier")).decision == "voided"
        assert "effect.voided" in await case.timeline()

    async def test_compensation_passes_it(self, yard: Yard):
        case = await yard.shipping()
        await case.run("book_carrier")
        await case.override("pause", OPERATOR)
        await case.override("undo")
        assert (await case.run("book_carrier:undo")).state == "settled"

    async def test_doing_again_what_was_paused_says_it_once(self, yard: Yard):
        case = await yard.shipping()
        await case.override("pause", OPERATOR)
        first = await case.run("book_carrier")
        before = await case.dump()
        again = await case.run("book_carrier")
        assert (first.state, again.state) == ("paused", "paused")
        assert await case.dump() == before

    async def test_a_pause_on_an_attempt_under_way_lets_it_settle(self, yard: Yard):
        case = await yard.shipping()
        begun = await case.begin("book_carrier")
        await case.override("pause", OPERATOR)
        assert isinstance(begun, Begun)
        assert (await begun.settle("succeeded")).state == "settled"


class TestDeadlines:
    @pytest.fixture
    def stored(self, yard: Yard):
        async def make() -> Handle:
            case = await yard.desk.open()
            await case.take("store")
            return case

        return make

    async def test_frozen_by_a_case_they_stand_still_and_move(self, stored):
        case = await stored()
        await case.override("pause", OPERATOR, deadlines="frozen")
        before = (await case.row()).deadline_at
        assert (await case.messages())[-1].payload["news"]["deadline_at"] is None
        await self.let_pass(case, timedelta(days=3))
        await case.pass_deadline()
        assert (await case.row()).escalated_to is None
        await case.override("resume", OPERATOR)
        moved = shifted(before, (await case.row()).deadline_at)
        assert moved == pytest.approx(0, abs=600), "three days of pause, three days back"
        assert (await case.messages())[-1].payload["news"]["deadline_at"] is not None
        assert "deadline.moved" in await case.timeline()

    async def let_pass(self, case: Handle, by: timedelta) -> None:
        """Time passes for the case and for its pause."""
        await case.time_passes(by)
        async with case.desk.database.transaction() as session:
            row = await session.get_one(type(await case.row()), case.id)
            row.state_since -= by
            if row.paused:
                since = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one() - by
                row.paused = {**row.paused, "since": since.isoformat()}

    async def test_running_they_pass(self, stored):
        case = await stored()
        await case.override("pause", OPERATOR)
        await self.let_pass(case, timedelta(days=3))
        await case.pass_deadline()
        assert (await case.row()).escalated_to == "chief"

    async def test_that_take_a_transition_are_taken_though_the_case_is_paused(self, stored):
        case = await stored()
        await case.take("abandon", CHIEF)
        await case.override("pause", OPERATOR)
        await self.let_pass(case, timedelta(days=31))
        await case.pass_deadline()
        assert (await case.row()).state == "scrapped"

    async def test_frozen_by_a_process_they_stand_still_until_its_resume_came_to_the_case(self, yard: Yard, stored):
        case = await stored()
        key = process_key(yard.desk.process.name)
        pause = await yard.pause(process=yard.desk.process.name, deadlines="frozen")
        before = (await case.row()).deadline_at
        await self.let_pass(case, timedelta(days=3))
        await yard.later(key, timedelta(days=3))
        assert (await case.pass_deadline()).deadline_at is None, "no timer that fires again and again"
        assert (await case.row()).escalated_to is None
        await yard.resume(pause)
        assert (await case.pass_deadline()).deadline_at is None, "its turn has not come yet"
        assert (await case.row()).escalated_to is None
        await yard.until_open(key)
        row = await case.row()
        assert shifted(before, row.deadline_at) == pytest.approx(0, abs=600)
        assert row.thawed is not None
        assert (await case.messages())[-1].payload["news"]["deadline_at"] == row.deadline_at.isoformat()

    async def test_time_under_two_pauses_is_given_back_once(self, yard: Yard, stored):
        case = await stored()
        before = (await case.row()).deadline_at
        await case.override("pause", OPERATOR, deadlines="frozen")
        pause = await yard.pause(process=yard.desk.process.name, deadlines="frozen")
        await self.let_pass(case, timedelta(days=3))
        await yard.later(process_key(yard.desk.process.name), timedelta(days=3))
        await case.override("resume", OPERATOR)
        await yard.resume(pause)
        await yard.until_open(process_key(yard.desk.process.name))
        assert shifted(before, (await case.row()).deadline_at) == pytest.approx(0, abs=600)


class TestAProcesss:
    async def test_holds_up_all_its_cases_and_refuses_new_ones(self, yard: Yard):
        case, other = await yard.shipping(), await yard.desk.open()
        name = yard.desk.process.name
        before = (await other.document()).etag
        await yard.pause(process=name)
        assert (await case.run("book_carrier")).state == "paused"
        assert (await case.document()).condition == "paused"
        shown = await other.document(CLERK)
        assert (shown.condition, shown.version, shown.etag != before) == ("paused", 1, True)
        for attempt in (other.take("ship"), yard.desk.open()):
            with pytest.raises(ActionNotAllowed) as refused:
                await attempt
            assert refused.value.first_code == "paused"

    async def test_resumed_it_lets_every_case_go_on(self, yard: Yard):
        cases = [await yard.shipping() for _ in range(5)]
        pause = await yard.pause(process=yard.desk.process.name)
        for case in cases:
            await case.run("book_carrier")
        await yard.resume(pause)
        await yard.until_open(process_key(yard.desk.process.name))
        for case in cases:
            assert (await case.effect("book_carrier")).state == "retrying"
            assert await case.work() == "finished"
        entries = [e for e in await cases[0].entries() if e.type in {"effect.paused", "effect.resumed"}]
        assert [(e.actor_id, e.reason) for e in entries] == [
            (OPERATOR.id, "Agreed by phone"),
            (OPERATOR.id, "They are back"),
        ]


class TestAPartners:
    async def test_holds_up_what_needs_it_and_refuses_nothing(self, yard: Yard):
        await yard.pause(partner="askable")
        case = await yard.shipping()
        assert (await case.run("book_carrier")).state == "settled"
        assert (await case.run("print_label")).state == "paused"
        assert yard.desk.partner.sent[-1].key.endswith("book_carrier")
        document = await case.document()
        assert (document.condition, document.condition_info.step) == ("paused", "print_label")
        shown = next(each for each in document.operation.steps if each.name == "print_label")
        assert (shown.state, shown.recovery_owner) == ("paused", "operator")

    async def test_compensation_waits_for_it(self, yard: Yard):
        case = await yard.shipping()
        await case.run("book_carrier")
        await yard.pause(partner="repeatable")
        await case.override("undo")
        assert (await case.run("book_carrier:undo")).state == "paused"

    async def test_whoever_only_asks_passes(self, yard: Yard):
        case = await yard.shipping()
        await case.run("book_carrier")
        yard.desk.partner.next(LostReply())
        assert (await case.run("print_label")).state == "retrying"
        await yard.pause(partner="askable")
        await case.time_passes(HOUR)
        assert (await case.run("print_label")).state == "settled"
        assert len(yard.desk.partner.asked) == 1

    async def test_who_asks_and_hears_that_nothing_happened_does_not_send(self, yard: Yard):
        case = await yard.shipping()
        yard.desk.partner.next(None, transient("dropped"))
        await case.run("book_carrier")
        begun = await case.begin("insure")
        assert isinstance(begun, Begun)
        await begun.settle("unknown")
        await yard.pause(partner="both")
        await case.time_passes(HOUR)
        sent = len(yard.desk.partner.sent)
        await case.run("insure")
        await case.time_passes(HOUR)
        assert (await case.run("insure")).state == "paused"
        assert len(yard.desk.partner.sent) == sent

    async def test_pausing_waits_for_reservations_that_did_not_see_it(self, yard: Yard):
        """Whatever the order of commits: nothing is reserved after the pause was answered."""
        cases = [await yard.shipping() for _ in range(12)]

        async def reserve(case: Handle) -> tuple[str, Any]:
            begun = await case.begin("book_carrier")
            if isinstance(begun, StepAnswer):
                return begun.state, None
            attempt = (await case.attempts("book_carrier"))[-1]
            return "reserved", attempt.started_at

        results = await all_at_once(
            *map(reserve, cases[:6]), yard.pause(partner="repeatable"), *map(reserve, cases[6:])
        )
        pause = next(each for each in results if isinstance(each, PauseDocument))
        since = (await yard.row(partner_key("repeatable"))).since
        assert pause.state == "paused"
        for state, started_at in (each for each in results if isinstance(each, tuple)):
            assert state in {"paused", "reserved"}
            assert started_at is None or started_at <= since

    async def test_a_resume_never_exceeds_its_rate(self, yard: Yard):
        cases = [await yard.shipping() for _ in range(8)]
        pause = await yard.pause(partner="repeatable")
        for case in cases:
            await case.run("book_carrier")
        await yard.resume(pause, rate=4)
        key = partner_key("repeatable")
        await yard.until_open(key)
        woken = sorted([(await case.effect("book_carrier")).since for case in cases])
        seconds = (woken[-1] - woken[0]).total_seconds()
        assert seconds >= (len(cases) - 1 - 4 * 0.5) / 4, "at most half a second's worth at once, then the rate"
        waited = [(await case.entries()) for case in cases]
        firsts = [next(e.at for e in entries if e.type == "effect.resumed") for entries in waited]
        assert firsts == sorted(firsts), "who waited longest goes first"

    async def test_pausing_twice_and_resuming_what_is_open_are_refused(self, yard: Yard):
        pause = await yard.pause(partner="repeatable", key="the same")
        assert (await yard.pause(partner="repeatable", key="the same")).pause_id == pause.pause_id
        with pytest.raises(IdempotencyKeyReused):
            await yard.pause(partner="askable", key="the same")
        with pytest.raises(ActionNotAllowed) as refused:
            await yard.pause(partner="repeatable")
        assert refused.value.first_code == "already_paused"
        await yard.resume(pause)
        with pytest.raises(ActionNotAllowed) as refused:
            await yard.resume(pause)
        assert refused.value.first_code == "not_paused"
        with pytest.raises(ActionNotAllowed) as refused:
            await yard.pause(person("clerk"), partner="repeatable")
        assert refused.value.http_status == 403


FAILING = partner_key("repeatable")


class TestTheBreaker:
    async def fail(self, yard: Yard, number: int, *, patient: bool = True) -> list[Handle]:
        cases = [await yard.shipping() for _ in range(number)]
        for case in cases:
            yard.desk.partner.next(transient())
            assert (await case.run("book_carrier")).state == "retrying" or not patient
        return cases

    async def trip(self, yard: Yard, others: Desk | None = None) -> list[Handle]:
        cases = await self.fail(yard, breaker.THRESHOLD - 1)
        await yard.later(FAILING, timedelta(seconds=10))
        other = Yard(others) if others else yard
        cases += await self.fail(other, 1)
        assert (await yard.row(FAILING)).state == "paused"
        return cases

    async def test_one_case_that_fails_for_ever_does_not_trip_it(self, yard: Yard):
        case = await yard.shipping()
        for _ in range(2 * breaker.THRESHOLD):
            yard.desk.partner.next(transient())
            await case.time_passes(HOUR)
            await case.run("book_carrier")
            if (await case.effect("book_carrier")).state == "blocked":
                await case.override("retry")
            await yard.later(FAILING, timedelta(seconds=10))
        assert (await yard.row(FAILING)).state == "open"

    async def test_several_that_fail_in_a_row_trip_it_for_all_workers(self, yard: Yard, database):
        await self.trip(yard, Desk(database, yard.desk.process))
        row = await yard.row(FAILING)
        assert (row.actor_id, row.trips, row.deadlines) == ("system", 1, "running")
        assert "repeatable does not answer" in row.reason
        case = await Yard(Desk(database, yard.desk.process)).shipping()
        assert (await case.run("book_carrier")).state == "paused"

    async def test_an_answer_between_begins_the_count_anew(self, yard: Yard):
        await self.fail(yard, breaker.THRESHOLD - 1)
        await yard.later(FAILING, timedelta(seconds=10))
        await (await yard.shipping()).run("book_carrier")
        assert (await yard.row(FAILING)).failing == []
        await self.fail(yard, breaker.THRESHOLD - 1)
        assert (await yard.row(FAILING)).state == "open"

    async def test_while_all_goes_well_nothing_is_written(self, yard: Yard):
        await (await yard.shipping()).run("book_carrier")
        before = await self.stamp(yard)
        for _ in range(3):
            await (await yard.shipping()).run("book_carrier")
        assert await self.stamp(yard) == before

    async def stamp(self, yard: Yard) -> Any:
        async with yard.desk.database.transaction() as session:
            return (
                await session.execute(text("SELECT ctid::text, number, failing::text FROM pauses ORDER BY 1"))
            ).all()

    async def test_it_probes_with_a_few_and_resumes(self, yard: Yard):
        cases = await self.trip(yard)
        for case in cases:
            await case.time_passes(HOUR)
            assert (await case.run("book_carrier")).state == "paused"
        await yard.resuming()
        assert (await yard.row(FAILING)).state == "paused", "not yet"
        await yard.later(FAILING, breaker.PROBE_AFTER)
        await yard.resuming()
        row = await yard.row(FAILING)
        assert (row.state, len(row.probes)) == ("probing", breaker.PROBES)
        woken = [case for case in cases if (await case.effect("book_carrier")).state == "retrying"]
        assert len(woken) == breaker.PROBES
        rest = [case for case in cases if case not in woken]
        assert (await rest[0].run("book_carrier")).state == "paused", "only the chosen may try"
        for case in woken:
            assert (await case.run("book_carrier")).state == "settled"
        assert (await yard.row(FAILING)).state == "resuming"
        await yard.until_open(FAILING)
        for case in rest:
            assert await case.work() == "finished"
        assert [state for state, _ in await yard.changes(FAILING)] == ["paused", "probing", "resuming", "open"]
        keys = yard.desk.partner.happened
        assert len(keys) == len(set(keys))

    async def test_a_probe_that_fails_pauses_again_for_longer(self, yard: Yard):
        cases = await self.trip(yard)
        for case in cases:
            await case.time_passes(HOUR)
            await case.run("book_carrier")
        await yard.later(FAILING, breaker.PROBE_AFTER)
        await yard.resuming()
        woken = [case for case in cases if (await case.effect("book_carrier")).state == "retrying"][0]  # noqa: RUF015
        yard.desk.partner.next(transient())
        await woken.run("book_carrier")
        row = await yard.row(FAILING)
        assert (row.state, row.trips) == ("paused", 2)
        assert row.probe_at - row.since == 2 * breaker.PROBE_AFTER

    async def test_what_a_person_paused_it_never_lifts(self, yard: Yard):
        cases = await self.trip(yard)
        await yard.pause(partner="repeatable", reason="They told us to wait")
        for case in cases:
            await case.time_passes(HOUR)
            await case.run("book_carrier")
        await yard.later(FAILING, timedelta(days=1))
        await yard.resuming()
        row = await yard.row(FAILING)
        assert (row.state, row.actor_id) == ("paused", OPERATOR.id)

    async def test_who_has_no_attempt_left_waits_for_it_instead_of_blocking(self, database):
        yard = Yard(Desk(database, parcels(replace(BOOK, retry=AT_ONCE), name="impatient")))
        begun = [await (await yard.shipping()).begin("book_carrier") for _ in range(breaker.THRESHOLD + 2)]
        states = []
        for each in begun:
            assert isinstance(each, Begun)
            states.append((await each.settle("transient")).state)
            await yard.later(FAILING, timedelta(seconds=1))
        assert states == ["blocked"] * (breaker.THRESHOLD - 1) + ["paused"] * 3


async def test_everybody_who_asks_for_a_pause_first_finds_it(yard: Yard):
    """Rows are made by whoever needs them first, at once by many too."""
    cases = [await yard.shipping() for _ in range(6)]
    answers = await all_at_once(*(case.run("book_carrier") for case in cases))
    assert [answer.state for answer in answers] == ["settled"] * 6
    async with yard.desk.database.transaction() as session:
        found = await holds_of(session, [partner_key("repeatable"), process_key(yard.desk.process.name)])
    assert {hold.state for hold in found.values()} == {"open"}
    assert len(found) == 2
