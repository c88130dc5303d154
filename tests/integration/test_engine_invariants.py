"""The script that judges every fault test is itself on trial: each violation is planted by hand, and must be found."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.client import WorkflowExecutionStatus

from caseward.outbox.store import TO_MAIL
from tests.faults import invariants
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import SENIOR, acknowledged, parcels, rejected, step, transient

PROCESS = parcels(step("book"), step("label", partner="askable"), name="judged")


async def draft(desk: Desk) -> Handle:
    return await desk.open()


async def accepted(desk: Desk) -> Handle:
    case = await desk.open()
    await case.take("ship")
    return case


async def shipped(desk: Desk) -> Handle:
    case = await accepted(desk)
    assert await case.work() == "finished"
    return case


async def undone(desk: Desk) -> Handle:
    case = await shipped(desk)
    await case.override("undo")
    assert await case.work() == "finished"
    return case


async def running(desk: Desk) -> Handle:
    case = await accepted(desk)
    await case.begin("book")
    return case


def answered(*answers: Any) -> Callable[[Desk], Awaitable[Handle]]:
    async def arrange(desk: Desk) -> Handle:
        case = await accepted(desk)
        desk.partner.next(*answers)
        await case.run("book")
        return case

    return arrange


retrying, blocked, waiting = answered(transient()), answered(rejected()), answered(acknowledged())


async def judge(case: Handle, ledger: list[str] | None = None) -> list[str]:
    keys = [*case.desk.partner.happened, *await mails(case)] if ledger is None else ledger
    record = await invariants.read(case.desk.database, [{"key": key} for key in keys], only={case.id})
    return invariants.of_record(record, case.desk.catalogue)


async def mails(case: Handle) -> list[str]:
    """The engine's own, as the mail server would know those that count as sent."""
    sent = [each for each in await case.messages() if each.destination == TO_MAIL and each.dispatched_at is not None]
    return [f"{case.id}{invariants.MAIL}{message.id}" for message in sent]


async def spoil(case: Handle, *statements: str) -> None:
    """As somebody with all rights on the database could, or a bug of ours."""
    async with case.desk.database.transaction() as session:
        await session.execute(text("SET LOCAL session_replication_role = replica"))  # past triggers and foreign keys
        for statement in statements:
            await session.execute(text(statement), {"case": case.id} if ":case" in statement else {})


async def dispatch(case: Handle) -> None:
    await spoil(case, "UPDATE outbox_messages SET dispatched_at = now() WHERE case_id = :case")


ALL_WELL = (draft, accepted, shipped, undone, running, retrying, blocked, waiting)


@pytest.mark.parametrize("arrange", ALL_WELL, ids=range(len(ALL_WELL)))
async def test_nothing_is_found_where_all_is_well(database, arrange):
    case = await arrange(Desk(database, PROCESS))
    await dispatch(case)
    assert await judge(case) == []


BOOK = "case_id = :case AND step = 'book' AND direction = 'do'"
MINE = "case_id = :case"


@dataclass(frozen=True)
class Plant:
    found: str
    arrange: Callable[[Desk], Awaitable[Handle]]
    statements: tuple[str, ...]


PLANTS = (
    Plant("never sent, the partner did", shipped, (f"UPDATE effects SET outcome = 'not_needed' WHERE {BOOK}",)),
    Plant("counts as failed", shipped, (f"UPDATE effects SET outcome = 'failed' WHERE {BOOK}",)),
    Plant("others are on record", shipped, (f"UPDATE effects SET attempt_count = 5 WHERE {BOOK}",)),
    Plant("offset without a compensation", shipped, (f"UPDATE effects SET offset_at = now() WHERE {BOOK}",)),
    Plant(
        "is completed, finished at None",
        shipped,
        (
            "ALTER TABLE operations DROP CONSTRAINT ck_operations_finished",
            f"UPDATE operations SET finished_at = NULL WHERE {MINE} AND name = 'ship'",
        ),
    ),
    Plant(
        "over unsettled",
        retrying,
        (f"UPDATE operations SET state = 'superseded', finished_at = now() WHERE {MINE} AND name = 'ship'",),
    ),
    Plant("its case moved on", retrying, ("UPDATE cases SET operation_id = NULL WHERE id = :case",)),
    Plant(
        "without every step of its way",
        shipped,
        (
            f"DELETE FROM attempts WHERE effect_key IN (SELECT key FROM effects WHERE {BOOK})",
            f"DELETE FROM effects WHERE {BOOK}",
        ),
    ),
    Plant("nobody decided on it", shipped, (f"UPDATE effects SET outcome = 'unknown' WHERE {BOOK}",)),
    Plant("names nobody who decides", accepted, ("UPDATE cases SET recovery_owner = NULL WHERE id = :case",)),
    Plant("waits on nobody", draft, ("UPDATE cases SET waiting_on = NULL WHERE id = :case",)),
    Plant("nothing is in flight", shipped, ("UPDATE cases SET state = 'shipping' WHERE id = :case",)),
    Plant(
        "no step, timer or person is next",
        accepted,
        ("UPDATE cases SET changed_at = now() - interval '1 day' WHERE id = :case",),
    ),
    Plant("names nobody who decides", blocked, (f"UPDATE effects SET recovery_owner = '' WHERE {BOOK}",)),
    Plant(
        "no attempt has a lease",
        running,
        (
            (
                "UPDATE attempts SET lease_until = now() - interval '1 day'"
                f" WHERE effect_key IN (SELECT key FROM effects WHERE {BOOK})"
            ),
        ),
    ),
    Plant("no attempt is due", retrying, (f"UPDATE effects SET next_attempt_at = NULL WHERE {BOOK}",)),
    Plant(
        "no attempt is due",
        retrying,
        (f"UPDATE effects SET next_attempt_at = now() - interval '1 day' WHERE {BOOK}",),
    ),
    Plant("without a limit", waiting, (f"UPDATE effects SET answer_by = NULL WHERE {BOOK}",)),
    Plant(
        "which is no pause",
        retrying,
        (f"UPDATE effects SET state = 'paused', paused_by = 'partner:carrier' WHERE {BOOK}",),
    ),
    Plant("without a cause", blocked, (f"UPDATE effects SET cause = NULL WHERE {BOOK}",)),
    Plant("which is no state", blocked, (f"UPDATE effects SET state = 'thinking' WHERE {BOOK}",)),
    Plant(
        "never expires",
        shipped,
        (
            (
                f"UPDATE operations SET state = 'proposed', finished_at = NULL, confirmations = 1 WHERE {MINE}"
                " AND name = 'ship'"
            ),
        ),
    ),
    Plant(
        "was not accepted",
        shipped,
        (
            (
                "UPDATE operations SET state = 'proposed', finished_at = NULL, confirmations = 0, expires_at = now()"
                f" WHERE {MINE} AND name = 'ship'"
            ),
        ),
    ),
    Plant(
        "too few who confirmed", shipped, (f"UPDATE operations SET confirmations = 2 WHERE {MINE} AND name = 'ship'",)
    ),
    Plant("paused without a reason", draft, ('UPDATE cases SET paused = \'{"by": "olga"}\' WHERE id = :case',)),
    Plant("neither dispatched nor parked", draft, (f"UPDATE outbox_messages SET dispatched_at = NULL WHERE {MINE}",)),
    Plant(
        "parked without a reason",
        draft,
        (f"UPDATE outbox_messages SET dispatched_at = NULL, parked = true WHERE {MINE}",),
    ),
    Plant("broken at entry 1", draft, (f"UPDATE timeline_entries SET reason = 'because' WHERE {MINE} AND number = 1",)),
    Plant(
        "broken at entry 2",
        shipped,
        (f"DELETE FROM timeline_entries WHERE {MINE} AND number = 2",),
    ),
    Plant(
        "its timeline is broken",
        shipped,
        (
            (
                f"DELETE FROM timeline_entries WHERE {MINE}"
                f" AND number = (SELECT max(number) FROM timeline_entries WHERE {MINE})"
            ),
        ),
    ),
)


@pytest.mark.parametrize("plant", PLANTS)
async def test_what_is_planted_in_the_database_is_found(database, plant: Plant):
    case = await plant.arrange(Desk(database, PROCESS))
    await dispatch(case)
    restore = "operations_finished" in plant.statements[0]
    await spoil(case, *plant.statements)
    found = await judge(case)
    if restore:
        await spoil(
            case,
            f"UPDATE operations SET finished_at = now() WHERE {MINE} AND name = 'ship'",
            "ALTER TABLE operations ADD CONSTRAINT ck_operations_finished CHECK ((state IN"
            " ('completed','undone','superseded','declined','expired')) = (finished_at IS NOT NULL))",
        )
    assert [line for line in found if plant.found in line and line.startswith(f"case {case.id}: ")], found


class TestTheLedger:
    async def test_an_effect_that_happened_twice(self, database):
        case = await shipped(Desk(database, PROCESS))
        await dispatch(case)
        keys = case.desk.partner.happened
        found = await judge(case, [*keys, keys[0]])
        assert [line for line in found if "happened 2 times at the partner" in line]

    async def test_an_effect_that_never_happened(self, database):
        case = await shipped(Desk(database, PROCESS))
        await dispatch(case)
        found = await judge(case, case.desk.partner.happened[1:])
        assert [line for line in found if "counts as succeeded, the partner did it 0 times" in line]

    async def test_an_effect_that_nobody_knows_of(self, database):
        case = await shipped(Desk(database, PROCESS))
        await dispatch(case)
        operation = (await case.row()).latest_id
        found = await judge(case, [*case.desk.partner.happened, f"{operation}:forgotten"])
        assert found == [f"case {case.id}: effect {operation}:forgotten happened, but nobody knows of it"]

    async def test_an_undone_effect_that_still_stands(self, database):
        case = await undone(Desk(database, PROCESS))
        await dispatch(case)
        found = await judge(case, [key for key in case.desk.partner.happened if "label:undo" not in key])
        assert [line for line in found if "stands at the partner without its compensation" in line]

    async def test_a_compensation_of_what_never_happened(self, database):
        case = await undone(Desk(database, PROCESS))
        await dispatch(case)
        found = await judge(case, [key for key in case.desk.partner.happened if not key.endswith(":label")])
        assert [line for line in found if "takes back what never happened" in line]


class Told:
    """A workflow that says what it is told to say."""

    def __init__(self, status: dict[str, Any], *, closed: bool = False) -> None:
        self.status, self.closed = status, closed

    def get_workflow_handle(self, _workflow_id: str) -> "Told":
        return self

    async def describe(self) -> Any:
        state = WorkflowExecutionStatus.COMPLETED if self.closed else WorkflowExecutionStatus.RUNNING
        return SimpleNamespace(status=state)

    async def query(self, _name: str, *, result_type: type) -> dict[str, Any]:
        return result_type(self.status)


async def agree(case: Handle, *, closed: bool = False, **changed: Any) -> list[str]:
    record = await invariants.read(case.desk.database, [], only={case.id})
    status = (await case.document(SENIOR)).model_dump(mode="json") | changed
    return await invariants.workflows_agree(Told(status, closed=closed), record)


class TestWorkflows:
    async def test_nothing_is_found_where_both_say_the_same(self, database):
        for arrange in (draft, blocked, retrying):
            assert await agree(await arrange(Desk(database, PROCESS))) == []

    @pytest.mark.parametrize("changed", [{"state": "shipped"}, {"condition": "running"}])
    async def test_another_state_or_condition_is_found(self, database, changed):
        assert len(await agree(await blocked(Desk(database, PROCESS)), **changed)) == 1

    async def test_another_operation_is_found(self, database):
        assert len(await agree(await blocked(Desk(database, PROCESS)), operation=None)) == 1

    async def test_other_open_steps_are_found(self, database):
        case = await blocked(Desk(database, PROCESS))
        operation = (await case.document()).model_dump(mode="json")["operation"]
        operation["steps"][0]["state"] = "retrying"
        assert len(await agree(case, operation=operation)) == 1

    async def test_a_workflow_that_closed_too_early_or_never_is_found(self, database):
        case = await blocked(Desk(database, PROCESS))
        assert len(await agree(case, closed=True)) == 1
        await case.override("force_cancel", SENIOR)
        assert (await case.row()).final
        assert len(await agree(case, closed=False)) == 1
        assert await agree(case, closed=True) == []
