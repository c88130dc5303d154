"""Overrides that came by a Temporal signal or update: the same command, one actor, bounded rights, never an error."""

from typing import Any
from uuid import UUID

import pytest

from caseward.cases.admission import admit_override
from caseward.messages import AdmitAnswer, AdmitCall
from caseward.trace import continue_trace
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import parcels, rejected, step

ALLOWED = frozenset({"retry", "skip"})


@pytest.fixture
async def case(database) -> Handle:
    """Blocked at its first step."""
    case = await Desk(database, parcels(step("book"), step("label"))).open()
    await case.take("ship")
    case.desk.partner.next(rejected())
    await case.run("book")
    return case


async def admit(case: Handle, key: str = "temporal:1", **payload: Any) -> AdmitAnswer:
    call = AdmitCall(case.desk.process.name, str(case.id), key, payload)
    return await admit_override(case.desk.database, case.desk.catalogue, call, allowed=ALLOWED)


class TestAccepted:
    async def test_becomes_an_operation_of_the_actor_temporal(self, case):
        answer = await admit(case, override="retry", reason="Seen in the UI", step="book", actor="mara")
        assert answer.accepted
        operation = await case.operation(UUID(answer.operation_id))
        assert (operation.actor_id, operation.actor_via) == ("temporal", "temporal")
        assert "claimed by mara" in operation.reason, "nobody verified the name, but it is kept"

    async def test_twice_under_one_key_is_one_operation(self, case):
        first = await admit(case, override="retry", reason="Seen in the UI")
        again = await admit(case, override="retry", reason="Seen in the UI")
        assert first == again
        assert (await case.timeline()).count("operation.accepted") == 2  # ship, retry

    async def test_a_key_belongs_to_one_case(self, case, database):
        other = await Desk(database, case.desk.process, case.desk.partner).open()
        await other.take("ship")
        other.desk.partner.next(rejected())
        await other.run("book")
        for each in (case, other):
            assert (await admit(each, override="retry", reason="The same signal to all of them")).accepted

    async def test_a_backslash_is_no_reason_to_refuse(self, case):
        assert (await admit(case, override="retry", reason="Type \\u0000 to confirm")).accepted

    async def test_wakes_the_workflow_like_every_other(self, case):
        answer = await admit(case, override="retry", reason="Seen in the UI")
        message = (await case.messages())[-1]
        assert (str(message.operation_id), message.payload["order"]["step"]) == (answer.operation_id, "book")


class TestRefused:
    @pytest.mark.parametrize(
        ("payload", "code"),
        [
            ({"override": "force_cancel", "reason": "Stop it"}, "not_by_signal"),
            ({"override": "undo", "reason": "Stop it"}, "not_by_signal"),
            ({"override": "mark_done", "reason": "Did it", "result": {"number": "1"}}, "not_by_signal"),
            ({"override": "retry", "reason": "Again", "step": "label"}, "step_not_open"),
            ({"override": "retry"}, "input_invalid"),
            ({"override": "retry", "reason": ""}, "input_invalid"),
            ({"override": "retry", "reason": 7}, "input_invalid"),
            ({"override": "retry", "reason": {"why": "so"}}, "input_invalid"),
            ({"override": "retry", "reason": "x" * 100_000}, "input_invalid"),
            ({"override": "retry", "reason": "Again", "happened": "perhaps"}, "input_invalid"),
            ({"override": "retry", "reason": "Again", "surprise": 1}, "input_invalid"),
            ({"override": "retry", "reason": "Again", **{f"field {n}": n for n in range(5000)}}, "input_invalid"),
            ({"override": "fly", "reason": "Again"}, "input_invalid"),
            ({"override": None}, "input_invalid"),
            ({"override": ["retry"], "reason": "Again"}, "input_invalid"),
            ({}, "input_invalid"),
            ({"payload": "not even an object"}, "input_invalid"),
            # What neither Postgres nor UTF-8 can hold must not come back as an error that is retried for ever.
            ({"override": "retry", "reason": "no\x00good"}, "input_invalid"),
            ({"override": "retry", "reason": "half \ud800 a pair"}, "input_invalid"),
            ({"override": "retry\x00", "reason": "Again"}, "input_invalid"),
            ({"override": "retry", "reason": "Again", "actor": "\x00\udfff"}, "input_invalid"),
            ({"override": "retry", "reason": "Again", "bad\x00field": 1}, "input_invalid"),
            ({"override": "skip", "reason": "Again", "step": "book\x00"}, "input_invalid"),
        ],
        ids=lambda value: str(value)[:50] if isinstance(value, dict) else value,
    )
    async def test_is_answered_and_told_in_the_timeline_and_changes_nothing_else(self, case, payload, code):
        before = await case.row()
        effect = await case.effect("book")
        answer = await admit(case, **payload)
        assert (answer.accepted, answer.problem["code"]) == (False, code)
        assert len(answer.problem["detail"]) < 1000
        entry = (await case.entries())[-1]
        assert (entry.type, entry.actor_id) == ("override.refused", "temporal")
        assert len(str(entry.data)) < 2000
        after = await case.row()
        assert (after.state, after.condition, after.fence) == (before.state, before.condition, before.fence)
        assert vars(await case.effect("book"))["state"] == vars(effect)["state"]
        assert await case.chain_break() is None

    async def test_binds_no_key(self, case):
        assert not (await admit(case, override="retry", reason="")).accepted
        assert (await admit(case, override="retry", reason="Seen in the UI")).accepted

    async def test_of_a_key_used_for_something_else_says_so(self, case):
        await admit(case, override="retry", reason="Seen in the UI")
        answer = await admit(case, override="retry", reason="Another reason")
        assert answer.problem["code"] == "idempotency_key_reused"

    async def test_a_key_nobody_can_store_is_refused(self, case):
        answer = await admit(case, key="temporal:\x00", override="retry", reason="Seen in the UI")
        assert (answer.accepted, answer.problem["code"]) == (False, "input_invalid")

    async def test_a_traceparent_of_its_own_is_well_formed(self):
        assert continue_trace("nonsense") != continue_trace("nonsense")
