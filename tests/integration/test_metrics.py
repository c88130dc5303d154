"""Metrics: known cases are played, and each number is exactly what was played."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from api import routes_metrics
from api.routes_metrics import Gauges
from caseward import metrics
from caseward.cases import gauges
from caseward.cases.gauges import read_gauges
from caseward.db.session import Database
from caseward.db.tables import Case
from caseward.outbox import store
from caseward.outbox.dispatcher import MAX_TRIES, Dispatcher
from caseward.outbox.store import TO_TEMPORAL
from tests.integration.desk import Desk, Handle
from tests.integration.office import Office
from tests.integration.parcels import (
    BOOK,
    CHIEF,
    OPERATOR,
    PAY,
    SENIOR,
    acknowledged,
    parcels,
    rejected,
    silent,
    transient,
)

SLACK = 600  # seconds that a slow machine may take to play a case; every age played is an hour
numbers = iter(range(1000))


def counted(sample_name: str, /, **labels: str) -> float:
    """The sum of every series with these labels."""
    families = text_string_to_metric_families(metrics.exposed().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == sample_name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> None:
    """How busy this machine is leaves no gauge out."""
    monkeypatch.setattr(gauges, "STATEMENT_TIMEOUT", timedelta(minutes=2))
    monkeypatch.setattr(gauges, "QUERIES_WITHIN", timedelta(minutes=4))
    monkeypatch.setattr(routes_metrics, "READ_WITHIN", timedelta(minutes=5))


@pytest.fixture
def desk(database: Database) -> Desk:
    """Of a process that no other test knows, so that its series are this test's alone."""
    return Desk(database, parcels(BOOK, PAY, name=f"metered_{next(numbers)}"))


async def gauge(desk: Desk, wanted: metrics.Gauge) -> dict[tuple[str, ...], float]:
    """The gauge of this desk's process, without the process's name."""
    async with desk.database.transaction() as session:
        readings = await read_gauges(session, desk.catalogue)
    return {labels[1:]: value for labels, value in readings[wanted] if labels[0] == desk.process.name}


async def refused_by_postgres(case: Handle) -> None:
    """A change of state that is noted, and then can't be written."""
    async with case.desk.database.transaction() as session:
        row = await session.get_one(Case, case.id)
        row.state, row.title = "shipping", None


class TestOperations:
    async def test_each_acceptance_start_and_outcome_is_counted_once(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        assert await case.work() == "finished"
        await case.override("undo")
        assert await case.work() == "finished"
        name = desk.process.name

        def accepted(**labels: str) -> float:
            return counted("caseward_operations_accepted_total", process=name, **labels)

        assert accepted() == 3
        assert accepted(kind="transition", name="open", via="api") == 1
        assert accepted(kind="transition", name="ship") == 1
        assert accepted(kind="override", name="undo") == 1

        def outcomes(**labels: str) -> float:
            return counted("caseward_operation_outcome_seconds_count", process=name, **labels)

        assert outcomes() == 3  # what was undone later had its outcome before, and has no second one
        assert outcomes(name="ship", outcome="completed") == 1
        assert outcomes(name="undo", outcome="completed") == 1
        assert counted("caseward_operation_start_seconds_count", process=name) == 3

    async def test_what_is_undone_or_superseded_in_flight_has_that_outcome(self, desk: Desk):
        undone, superseded = await desk.open(), await desk.open()
        for case in (undone, superseded):
            desk.partner.next(None, rejected())
            await case.take("ship")
            assert await case.work() == "blocked"
        await undone.override("undo")
        await superseded.take("cancel")
        assert [await undone.work(), await superseded.work()] == ["finished", "finished"]
        name = desk.process.name
        for outcome in ("undone", "superseded"):
            labels = {"process": name, "name": "ship", "outcome": outcome}
            assert counted("caseward_operation_outcome_seconds_count", **labels) == 1, outcome

    async def test_what_is_rolled_back_never_counts(self, desk: Desk):
        case = await desk.open()
        with pytest.raises(IntegrityError):
            await refused_by_postgres(case)
        await case.take("store")
        assert counted("caseward_state_duration_seconds_count", process=desk.process.name) == 1

    async def test_a_correction_with_a_revision_of_its_own_counts_once(self, desk: Desk):
        case = await desk.open()  # its revision is flushed in the middle of the transaction
        await case.take("correct", parcel={"to": "Bergen"})
        labels = {"process": desk.process.name, "name": "correct"}
        assert counted("caseward_operations_accepted_total", **labels) == 1
        assert counted("caseward_operation_outcome_seconds_count", **labels) == 1

    async def test_a_transition_taken_again_is_repeated(self, desk: Desk):
        first, second = await desk.open(), await desk.open()
        for _ in range(3):
            await first.take("correct", parcel={"to": "Bergen"})
        await second.take("correct", parcel={"to": "Bergen"})
        name = desk.process.name
        assert counted("caseward_transitions_repeated_total", process=name, name="correct") == 2
        assert counted("caseward_transitions_repeated_total", process=name) == 2

    async def test_one_that_a_deadline_takes_again_is_repeated_too(self, desk: Desk):
        case = await desk.open()
        for _ in range(2):
            await case.take("store")
            await case.take("abandon", CHIEF)
            await case.time_passes(timedelta(days=31))
            await case.pass_deadline()
            await case.take("reopen")
        repeated = {"process": desk.process.name, "name": "scrap"}
        assert counted("caseward_transitions_repeated_total", **repeated) == 1
        assert counted("caseward_operations_accepted_total", via="system", **repeated) == 2

    async def test_time_in_state_is_told_when_the_state_is_left(self, desk: Desk):
        case = await desk.open()
        name = desk.process.name
        assert counted("caseward_state_duration_seconds_count", process=name) == 0
        async with desk.database.transaction() as session:
            moved = text("UPDATE cases SET state_since = state_since - interval '1 hour' WHERE id = :id")
            await session.execute(moved, {"id": case.id})
        await case.take("store")
        assert counted("caseward_state_duration_seconds_count", process=name, state="draft") == 1
        spent = counted("caseward_state_duration_seconds_sum", process=name, state="draft")
        assert spent == pytest.approx(3600, abs=SLACK)
        await case.take("correct", parcel={"to": "Bergen"})
        assert counted("caseward_state_duration_seconds_count", process=name, state="stored") == 1


class TestAttempts:
    async def test_each_has_the_outcome_it_was_settled_with(self, desk: Desk):
        outcomes = ("succeeded", "failed", "unknown", "acknowledged")

        def so_far() -> list[float]:
            return [counted("caseward_attempts_total", partner="carrier", outcome=each) for each in outcomes]

        before = so_far()
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(transient(), None, silent())
        assert await case.work() == "retrying"
        await case.time_passes(timedelta(seconds=2))
        assert await case.work() == "blocked"  # stubborn, and silent: nobody knows
        assert [after - earlier for after, earlier in zip(so_far(), before, strict=True)] == [1, 1, 1, 0]

    async def test_one_that_was_unknown_and_is_learnt_later_is_no_second_one(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        begun = await case.begin("book_carrier")
        before = counted("caseward_attempts_total", partner="repeatable")
        await begun.settle("unknown")
        await begun.settle("succeeded")
        assert counted("caseward_attempts_total", partner="repeatable") - before == 1

    async def test_an_acknowledgement_is_one(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(acknowledged())
        before = counted("caseward_attempts_total", partner="carrier", outcome="acknowledged")
        assert (await case.run("book_carrier")).state == "waiting"
        assert counted("caseward_attempts_total", partner="carrier", outcome="acknowledged") - before == 1


async def blocked(desk: Desk) -> Handle:
    case = await desk.open()
    await case.take("ship")
    desk.partner.next(rejected())
    assert await case.work() == "blocked"
    return case


class TestGauges:
    async def test_open_cases_by_state_condition_and_owner(self, desk: Desk):
        await desk.open()
        await desk.open()
        case = await blocked(desk)
        async with desk.database.transaction() as session:
            moved = text("UPDATE cases SET condition_since = condition_since - interval '1 hour' WHERE id = :id")
            await session.execute(moved, {"id": case.id})
        case = await blocked(desk)
        await case.override("mark_done", SENIOR, step="book_carrier", result={"number": "R7"})
        await case.override("force_cancel")
        assert await gauge(desk, metrics.CASES) == {
            ("draft", "waiting", "clerk"): 2,
            ("shipping", "blocked", "logistics"): 1,
            ("cancelling", "undoing", "front_desk"): 1,
        }
        oldest = await gauge(desk, metrics.CASES_OLDEST)
        assert oldest["shipping", "blocked", "logistics"] == pytest.approx(3600, abs=SLACK)
        assert oldest["draft", "waiting", "clerk"] < SLACK

    async def test_a_paused_process_has_paused_cases_only(self, desk: Desk):
        await desk.open()
        case = await desk.open()
        await case.override("pause", OPERATOR)
        async with desk.database.transaction() as session:
            await session.execute(
                text(
                    "INSERT INTO pauses (key, id, number, state, since, deadlines, rate, failing, probes, trips)"
                    " VALUES (:key, :id, 1, 'paused', now(), 'running', 0, '[]', '[]', 0)"
                ),
                {"key": f"process:{desk.process.name}", "id": uuid4()},
            )
        assert await gauge(desk, metrics.CASES) == {("draft", "paused", "operator"): 2}
        async with desk.database.transaction() as session:
            readings = await read_gauges(session, desk.catalogue)
        assert (("process", desk.process.name, "paused"), 1) in list(readings[metrics.PAUSES])

    async def test_unknown_outcomes_until_somebody_knows(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(None, silent())
        assert await case.work() == "blocked"
        assert await gauge(desk, metrics.UNKNOWN) == {("carrier", "treasury"): 1}
        await case.override("mark_done", SENIOR, step="pay_postage", result={"number": "R7"})
        assert await gauge(desk, metrics.UNKNOWN) == {}

    async def test_a_deadline_that_nothing_acted_on(self, desk: Desk):
        case = await desk.open()
        await case.take("store")
        assert await gauge(desk, metrics.CASES_OVERDUE) == {}
        await case.time_passes(timedelta(days=3))
        assert await gauge(desk, metrics.CASES_OVERDUE) == {("stored",): 1}
        await case.pass_deadline()
        assert await gauge(desk, metrics.CASES_OVERDUE) == {}


class TestOutbox:
    @pytest.fixture
    async def emptied(self, database: Database):
        """Nothing but what the test puts in."""
        async with database.transaction() as session:
            await session.execute(text("UPDATE outbox_messages SET dispatched_at = now(), parked = false"))

    async def read(self, desk: Desk) -> list[float]:
        async with desk.database.transaction() as session:
            readings = await read_gauges(session, desk.catalogue)
        wanted = (metrics.OUTBOX_WAITING, metrics.OUTBOX_OLDEST, metrics.OUTBOX_PARKED)
        return [dict(readings[each])[(TO_TEMPORAL,)] for each in wanted]

    async def test_what_waits_is_delivered_or_parked(self, desk: Desk, emptied):
        assert await self.read(desk) == [0, 0, 0]
        await desk.open()
        async with desk.database.transaction() as session:
            await session.execute(
                text("UPDATE outbox_messages SET created_at = now() - interval '1 hour' WHERE dispatched_at IS NULL")
            )
        waiting, oldest, parked = await self.read(desk)
        assert (waiting, parked) == (1, 0)
        assert oldest == pytest.approx(3600, abs=SLACK)
        refused = counted("caseward_messages_refused_total", destination=TO_TEMPORAL)
        set_aside = counted("caseward_messages_parked_total", destination=TO_TEMPORAL)

        async def refuse(_: object) -> None:
            raise ValueError

        async def say_nothing(*_: object) -> None: ...

        dispatcher = Dispatcher(desk.database, {TO_TEMPORAL: refuse}, say_nothing)
        for _ in range(MAX_TRIES):
            async with desk.database.transaction() as session:
                await session.execute(text("UPDATE outbox_messages SET next_at = now() WHERE dispatched_at IS NULL"))
            await dispatcher.dispatch_due()
        assert await self.read(desk) == [0, 0, 1]
        assert counted("caseward_messages_refused_total", destination=TO_TEMPORAL) - refused == MAX_TRIES - 1
        assert counted("caseward_messages_parked_total", destination=TO_TEMPORAL) - set_aside == 1

    async def test_a_delivery_tells_how_long_its_operation_waited(self, desk: Desk, emptied):
        await desk.open()
        delivered = counted("caseward_message_dispatch_seconds_count", destination=TO_TEMPORAL)
        async with desk.database.transaction() as session:
            claimed = await store.claim(session, limit=10)
            assert len(claimed) == 1
            await store.mark_dispatched(session, claimed)
        labels = {"process": desk.process.name, "kind": "transition"}
        assert counted("caseward_operation_dispatch_seconds_count", **labels) == 1
        assert counted("caseward_message_dispatch_seconds_count", destination=TO_TEMPORAL) - delivered == 1


class TestScrape:
    async def test_asks_for_no_token_and_names_no_case(self, office: Office):
        case = await office.draft()
        answer = await office.bearing(None).get("/metrics")
        assert (answer.status_code, answer.headers["content-type"]) == (200, metrics.CONTENT_TYPE)
        families = {family.name for family in text_string_to_metric_families(answer.text)}
        assert {gauge.name for gauge in metrics.GAUGES} <= families
        assert "caseward_database_up 1.0" in answer.text
        assert 'caseward_process_info{owner="vendor_desk",process="vendor_onboarding"} 1.0' in answer.text
        for said in (case["case_id"], case["business_key"], case["title"]):
            assert said not in answer.text

    async def test_goes_on_without_postgres(self, office: Office):
        await office.stack.stop_service("postgres")
        try:
            read = await Gauges(office.app.state.wiring).read()
            answer = await office.bearing(None).get("/metrics")
        finally:
            await office.stack.start_service("postgres")
        assert set(read) == {metrics.DATABASE_UP, metrics.PROCESS_INFO}
        assert list(read[metrics.DATABASE_UP]) == [((), 0)]
        assert answer.status_code == 200
        assert "caseward_operations_accepted_total{" in answer.text

    async def test_waits_for_nobody_who_holds_a_table(self, office: Office, monkeypatch):
        monkeypatch.setattr(gauges, "STATEMENT_TIMEOUT", timedelta(seconds=2))
        monkeypatch.setattr(gauges, "QUERIES_WITHIN", timedelta(seconds=4))
        async with office.database.transaction() as session:
            await session.execute(text("LOCK TABLE cases IN ACCESS EXCLUSIVE MODE"))
            read = await Gauges(office.app.state.wiring).read()
        assert list(read[metrics.DATABASE_UP]) == [((), 1)]
        assert {("caseward_cases",), ("caseward_cases_overdue",)} <= dict(read[metrics.GAUGES_UNREAD]).keys()
        assert metrics.CASES not in read

    async def test_one_query_that_takes_too_long_costs_no_other_gauge(self, office: Office, monkeypatch):
        monkeypatch.setattr(gauges, "STATEMENT_TIMEOUT", timedelta(seconds=2))
        async with office.database.transaction() as session:
            await session.execute(text("LOCK TABLE callbacks IN ACCESS EXCLUSIVE MODE"))
            read = await Gauges(office.app.state.wiring).read()
        assert list(read[metrics.DATABASE_UP]) == [((), 1)]
        assert dict(read[metrics.GAUGES_UNREAD]) == {("caseward_callbacks_parked",): 1}
        assert set(metrics.GAUGES) - read.keys() == {metrics.CALLBACKS_PARKED}
        assert b'caseward_gauges_unread{gauge="caseward_callbacks_parked"} 1.0' in metrics.exposed(read)

    async def test_many_at_once_are_one_reading(self, office: Office):
        gauges = Gauges(office.app.state.wiring)
        read = await asyncio.gather(*(gauges.read() for _ in range(10)))
        assert len({id(each) for each in read}) == 1
