"""Numbers: known cases are played, and every number is exactly what was played."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from caseward.cases import numbers
from caseward.cases.numbers import get_numbers
from caseward.db.session import Database
from caseward.documents.numbers import Numbers, OperationNumbers, ProcessNumbers
from caseward.process import Catalogue
from tests.integration.desk import Desk, Handle
from tests.integration.office import Office
from tests.integration.parcels import BOOK, LABEL, OPERATOR, PAY, SENIOR, parcels, rejected, silent, step, transient

SLACK = 600  # seconds that a slow machine may take to play a case; every age played is hours
names = (f"numbered_{number}" for number in range(1000))
SENIOR_ROLES = ("operator", "senior_operator", "auditor")


@pytest.fixture
def desk(database: Database) -> Desk:
    """Of a process that no other test knows."""
    return Desk(database, parcels(BOOK, PAY, name=next(names)))


async def look(desk: Desk, days: int = 1) -> Numbers:
    async with desk.database.transaction() as session:
        return await get_numbers(session, desk.catalogue, days=days)


async def of_process(desk: Desk, days: int = 1) -> ProcessNumbers:
    return (await look(desk, days)).processes[0]


async def operations(desk: Desk) -> dict[tuple[str, str], OperationNumbers]:
    found = (await of_process(desk)).operations
    by_name = {(row.name, row.owner): row for row in found}
    assert len(by_name) == len(found)
    return by_name


async def blocked(desk: Desk) -> Handle:
    case = await desk.open()
    await case.take("ship")
    desk.partner.next(None, rejected())
    assert await case.work() == "blocked"
    return case


async def change(desk: Desk, statement: str, **given: Any) -> None:
    async with desk.database.transaction() as session:
        await session.execute(text(statement), given)


async def age(desk: Desk, case: Handle, by: timedelta) -> None:
    """All that happened to the case so far happened that much earlier, ids included."""
    shifted = {
        "cases": ("state_since", "condition_since", "opened_at", "changed_at"),
        "operations": ("accepted_at", "started_at", "finished_at"),
    }
    for table, columns in shifted.items():
        own = "id" if table == "cases" else "case_id"
        changes = ", ".join(f"{column} = {column} - :by" for column in columns)
        await change(desk, f"UPDATE {table} SET {changes} WHERE {own} = :id", by=by, id=case.id)


async def with_older_ids(desk: Desk, case: Handle) -> Handle:
    """The case and its operations under the ids that they would have had when it was opened."""

    def older(id_: UUID, at: datetime) -> UUID:
        return UUID(int=numbers._first_id(at).int | (id_.int & (2**80 - 1)))

    row = await case.row()
    new = Handle(desk, older(case.id, row.opened_at))
    async with desk.database.transaction() as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))  # no foreign keys, no triggers
        for operation_id, at in await session.execute(
            text("SELECT id, accepted_at FROM operations WHERE case_id = :id"), {"id": case.id}
        ):
            for column in ("operations.id", "cases.latest_id"):
                table, _, name = column.partition(".")
                statement = text(f"UPDATE {table} SET {name} = :older WHERE {name} = :id")
                await session.execute(statement, {"older": older(operation_id, at), "id": operation_id})
        for table in ("operations", "timeline_entries", "subjects", "outbox_messages", "cases"):
            own = "id" if table == "cases" else "case_id"
            statement = text(f"UPDATE {table} SET {own} = :new WHERE {own} = :id")
            await session.execute(statement, {"new": new.id, "id": case.id})
    return new


class TestOperations:
    async def test_each_name_has_its_outcomes(self, desk: Desk):
        done = await desk.open()
        await done.take("ship")
        assert await done.work() == "finished"
        undone, superseded, stuck = await blocked(desk), await blocked(desk), await blocked(desk)
        await undone.override("undo")
        assert await undone.work() == "finished"
        await superseded.take("cancel")
        assert await superseded.work() == "finished"
        found = await operations(desk)
        ship = found["ship", "front_desk"]
        assert (ship.accepted, ship.completed, ship.undone, ship.superseded, ship.open) == (4, 1, 1, 1, 1)
        assert (ship.outcome.count, ship.started.count) == (3, 4)
        assert found["open", "front_desk"].completed == 4
        undo = found["undo", "front_desk"]
        assert (undo.kind, undo.title, undo.accepted, undo.completed) == ("override", "Take it back", 1, 1)
        assert (await of_process(desk)).stuck == 1
        assert (await stuck.row()).condition == "blocked"

    async def test_overrides_are_told_by_the_owner_of_their_step(self, desk: Desk):
        case = await blocked(desk)
        for _ in range(2):
            await case.override("retry", OPERATOR, step="pay_postage")
            desk.partner.next(rejected())
            assert await case.work() == "blocked"
        await case.override("skip", SENIOR, step="pay_postage")
        assert await case.work() == "finished"
        found = await operations(desk)
        assert (found["retry", "treasury"].accepted, found["retry", "treasury"].completed) == (2, 2)
        assert found["skip", "treasury"].accepted == 1
        assert ("retry", "front_desk") not in found

    async def test_a_transition_taken_again_is_repeated_also_since_before_the_days(self, desk: Desk):
        old, new = await desk.open(), await desk.open()
        for case in (old, new):
            await case.take("correct", parcel={"to": "Bergen"})
        await age(desk, old, timedelta(days=3))
        old = await with_older_ids(desk, old)
        await old.take("correct", parcel={"to": "Bergen"})
        await new.take("correct", parcel={"to": "Bergen"})
        await new.take("correct", parcel={"to": "Bergen"})
        day = {row.name: row for row in (await of_process(desk)).operations}
        assert (day["correct"].accepted, day["correct"].repeated) == (4, 3)
        week = {row.name: row for row in (await of_process(desk, days=7)).operations}
        assert (week["correct"].accepted, week["correct"].repeated) == (5, 3)
        assert (day["open"].accepted, week["open"].accepted) == (1, 2)

    async def test_replays_are_counted_as_asked_for(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        assert await case.work() == "finished"
        async with desk.database.transaction() as session:
            from caseward.cases.queries import get_plan

            plan = await get_plan(session, desk.catalogue, case_id=case.id, step="pay_postage", actor=SENIOR)
        await case.override("replay", SENIOR, step="pay_postage", plan_hash=plan.plan_hash)
        replay = (await operations(desk))["replay", "front_desk"]
        assert (replay.accepted, replay.open, replay.proposed) == (1, 1, 0)

    async def test_what_was_proposed_is_not_accepted(self, database: Database):
        careful = step("pay_postage", partner="stubborn", owner="treasury")
        desk = Desk(database, parcels(BOOK, careful, name=next(names)))
        case = await blocked(desk)
        await change(desk, "UPDATE operations SET state = 'proposed' WHERE case_id = :id AND name = 'ship'", id=case.id)
        ship = (await operations(desk))["ship", "front_desk"]
        assert (ship.accepted, ship.proposed, ship.open, ship.started.count) == (0, 1, 0, 0)

    async def test_durations_are_quantiles(self, desk: Desk):
        for minutes in (1, 2, 3, 4, 100):
            case = await desk.open()
            await case.take("store")
            await change(
                desk,
                "UPDATE operations SET accepted_at = finished_at - :took WHERE case_id = :id AND name = 'store'",
                took=timedelta(minutes=minutes),
                id=case.id,
            )
        outcome = (await operations(desk))["store", "front_desk"].outcome
        assert (outcome.count, outcome.p50, outcome.longest) == (5, 180, 6000)


class TestStates:
    async def test_where_cases_are_and_how_long_the_others_were(self, desk: Desk):
        await desk.open()
        shipped, stored = await desk.open(), await desk.open()
        await age(desk, shipped, timedelta(hours=2))
        await age(desk, stored, timedelta(hours=4))
        await shipped.take("ship")
        assert await shipped.work() == "finished"
        await stored.take("store")
        await age(desk, stored, timedelta(hours=1))
        found = {row.state: row for row in (await of_process(desk)).states}
        assert {name: row.cases for name, row in found.items() if row.cases} == {"draft": 1, "shipped": 1, "stored": 1}
        left = {name: row.left for name, row in found.items() if row.left.count}
        assert left["draft"].count == 2
        assert left["draft"].p50 == pytest.approx(3 * 3600, abs=SLACK)
        assert left["draft"].longest == pytest.approx(4 * 3600, abs=SLACK)
        assert left["shipping"].count == 1
        assert set(left) == {"draft", "shipping"}
        assert found["stored"].mean_seconds == pytest.approx(3600, abs=SLACK)

    async def test_what_was_undone_after_its_outcome_left_its_state_then(self, desk: Desk):
        case = await desk.open()
        await case.take("ship")
        assert await case.work() == "finished"
        await case.override("undo")
        assert await case.work() == "finished"
        left = {row.state: row.left.count for row in (await of_process(desk)).states if row.left.count}
        assert left == {"draft": 1, "shipping": 2, "shipped": 1}  # pending once each for the way there and back
        assert (await case.row()).state == "draft"

    async def test_what_left_before_the_days_does_not_count(self, desk: Desk):
        case = await desk.open()
        await case.take("store")
        await age(desk, case, timedelta(days=3))
        assert sum(row.left.count for row in (await of_process(desk)).states) == 0
        assert sum(row.left.count for row in (await of_process(desk, days=7)).states) == 1

    async def test_says_when_not_every_case_was_looked_at(self, desk: Desk, monkeypatch):
        for _ in range(3):
            await desk.open()
        assert not (await of_process(desk)).sampled
        monkeypatch.setattr(numbers, "MOST_CASES", 2)
        assert (await of_process(desk)).sampled

    async def test_stands_where_lists_of_cases_show_it(self, desk: Desk):
        await desk.open()
        stuck = [await blocked(desk), await blocked(desk)]
        await age(desk, stuck[0], timedelta(hours=5))
        shown = [(row.state, row.condition, row.owner, row.cases) for row in (await of_process(desk)).standing]
        assert shown == [("shipping", "blocked", "treasury", 2), ("draft", "waiting", "clerk", 1)]
        first = (await of_process(desk)).standing[0]
        assert first.oldest_since == (await stuck[0].row()).condition_since
        assert first.href.endswith("state=shipping&condition=blocked&recovery_owner=treasury")

    async def test_a_closed_case_is_not_open(self, desk: Desk):
        case = await desk.open()
        await case.take("cancel")
        process = await of_process(desk)
        assert (process.open, process.stuck) == (0, 0)
        left = {row.state: row.left.count for row in process.states if row.left.count}
        assert left == {"draft": 1}

    async def test_under_a_paused_process_every_case_is_paused(self, desk: Desk):
        await desk.open()
        await blocked(desk)
        await change(
            desk,
            "INSERT INTO pauses (key, id, number, state, since, deadlines, rate, failing, probes, trips)"
            " VALUES (:key, gen_random_uuid(), 1, 'paused', now(), 'running', 0, '[]', '[]', 0)"
            " ON CONFLICT (key) DO UPDATE SET state = 'paused', since = now()",
            key=f"process:{desk.process.name}",
        )
        process = await of_process(desk)
        assert {(row.condition, row.owner) for row in process.standing} == {("paused", "operator")}
        assert (process.open, process.stuck) == (2, 0)


class TestPartners:
    async def test_attempts_of_the_last_hour_by_outcome(self, database: Database):
        name = next(names)
        mine = step("book_carrier", partner="repeatable", owner="logistics")
        desk = Desk(database, parcels(mine, LABEL, name=name))
        await change(desk, "UPDATE attempts SET started_at = started_at - interval '2 hours'")
        await change(desk, "UPDATE effects SET state = 'settled' WHERE state IN ('blocked', 'waiting')")
        await change(desk, "UPDATE effects SET partner = 'repeatable' WHERE partner = 'carrier'")
        case = await desk.open()
        await case.take("ship")
        desk.partner.next(transient())
        assert await case.work() == "retrying"
        await case.time_passes(timedelta(seconds=2))
        desk.partner.next(silent())
        assert await case.work() == "retrying"
        await case.time_passes(timedelta(minutes=2))
        desk.partner.next(rejected())
        assert await case.work() == "blocked"
        await change(desk, "UPDATE effects SET partner = 'repeatable' WHERE partner = 'carrier'")
        partners = {row.partner: row for row in (await look(desk)).partners}
        assert set(partners) == {"repeatable", "askable"}
        partner = partners["repeatable"]
        assert (partner.attempts, partner.blocked, partner.waiting) == ({"failed": 2, "unknown": 1}, 1, 0)
        assert partner.last_succeeded_at is None
        assert partner.last_failed_at is not None
        assert partner.answered.count == 2  # the one that was silent has not answered
        assert partner.processes == [name]
        assert partners["askable"].attempts == {}

    async def test_a_pause_that_stands_is_told(self, database: Database):
        desk = Desk(database, parcels(BOOK, name=next(names)))
        await change(
            desk,
            "INSERT INTO pauses (key, id, number, state, since, reason, actor_id, actor_via, deadlines, rate, failing,"
            " probes, trips) VALUES ('partner:repeatable', gen_random_uuid(), 1, 'probing', now(), 'It failed',"
            " 'system', 'system', 'running', 0, '[]', '[]', 1)",
        )
        pause = (await look(desk)).partners[0].pause
        assert pause is not None
        assert (pause.state, pause.reason) == ("probing", "It failed")


class TestDoor:
    async def test_operators_and_auditors_may(self, office: Office):
        for role in SENIOR_ROLES:
            answer = await office.person(f"{role}-1", role).get("/v1/numbers?days=30&process=vendor-onboarding")
            assert answer.status_code == 200, answer.text
            assert [each["process"] for each in answer.json()["processes"]] == ["vendor_onboarding"]
        refused = await office.requester.get("/v1/numbers")
        assert (refused.status_code, refused.json()["code"]) == (403, "role_missing")
        assert (await office.bearing(None).get("/v1/numbers")).status_code == 401

    async def test_all_processes_with_all_their_states_and_partners(self, office: Office):
        case = await office.in_review()
        answer = (await office.operator.get("/v1/numbers")).json()
        assert answer["days"] == 7
        vendor = next(each for each in answer["processes"] if each["process"] == "vendor_onboarding")
        declared = (await office.operator.get("/v1/processes/vendor_onboarding")).json()
        assert [row["state"] for row in vendor["states"]] == [state["name"] for state in declared["states"]]
        standing = next(row for row in vendor["standing"] if row["state"] == "in_review")
        listed = await office.operator.get(standing["href"])
        assert case["case_id"] in {row["case_id"] for row in listed.json()["cases"]}
        assert len(listed.json()["cases"]) == min(standing["cases"], 50)
        assert {"bank", "erp", "screening"} <= {each["partner"] for each in answer["partners"]}

    async def test_an_unknown_process_or_a_senseless_number_of_days_is_refused(self, office: Office):
        unknown = await office.operator.get("/v1/numbers?process=nothing")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "process_not_found")
        for days in ("0", "91", "many"):
            assert (await office.operator.get(f"/v1/numbers?days={days}")).status_code == 422


def test_a_process_may_not_be_called_numbers(database: Database):
    from pathlib import Path

    from api.app import create_app
    from api.tokens import Verifier

    taken = Catalogue([parcels(BOOK, name="numbers")])
    with pytest.raises(ValueError, match="/v1/numbers is something else"):
        create_app(database, taken, Verifier(Path("none"), issuer="", audience=""))
