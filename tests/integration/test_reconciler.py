"""The reconciler against a real Temporal: whatever somebody or something did to it, every case goes on."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from sqlalchemy import delete as sql_delete
from sqlalchemy import update
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest, RemoveSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest, ResetWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError

from caseward.cases import repair
from caseward.cases.operations import load
from caseward.db.session import Database
from caseward.db.tables import Case, Known
from caseward.errors import ActionNotAllowed
from caseward.messages import PERFORM, SEARCH_ATTRIBUTES, News, Order, Perform
from caseward.reconciler.temporal import Temporal
from dev.stack import Stack
from tests.integration.desk import Handle
from tests.integration.parcels import CLERK, OPERATOR, rejected, transient
from tests.integration.yard import PATIENCE, Grounds, Yard

LONG_AGO = timedelta(days=3)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def grounds(settings_for, tmp_path_factory) -> AsyncIterator[Grounds]:
    settings = settings_for(tmp_path_factory.mktemp("reconciler") / "data")
    async with Stack(settings, only=("postgres", "temporal", "migrations")) as stack:
        yield Grounds(stack.database_url, stack.temporal_address)


@pytest_asyncio.fixture(loop_scope="session")
async def yard(grounds: Grounds) -> AsyncIterator[Yard]:
    async with grounds.yard() as yard, yard.working():
        yield yard


@pytest_asyncio.fixture(loop_scope="session")
async def idle(grounds: Grounds) -> AsyncIterator[Yard]:
    """A yard where nobody works, unless the test lets somebody."""
    async with grounds.yard() as yard:
        yield yard


async def blocked(yard: Yard) -> Handle:
    """At its second step, whose partner refused."""
    case = await yard.desk.open()
    yard.desk.partner.next(None, rejected())
    await case.take("ship")
    await yard.stands(case, "shipping", "blocked", looking=False)
    return case


async def retrying(yard: Yard) -> Handle:
    """At its second step, to be tried again in an hour."""
    case = await yard.desk.open()
    yard.desk.partner.next(None, transient())
    await case.take("ship")
    await yard.stands(case, "shipping", "retrying", looking=False)
    return case


async def at_rest(yard: Yard) -> Handle:
    """In a state with a deadline."""
    case = await yard.desk.open()
    await case.take("store")
    await yard.stands(case, "stored", "waiting", looking=False)
    return case


async def terminate(yard: Yard, case: Handle) -> None:
    await yard.workflow(case).terminate("by hand")


async def cancel(yard: Yard, case: Handle) -> None:
    await yard.workflow(case).cancel()

    async def closed() -> bool:
        return not await yard.runs(case)

    await yard.until(closed, looking=False)


async def delete(yard: Yard, case: Handle) -> None:
    execution = WorkflowExecution(workflow_id=yard.workflow(case).id)
    request = DeleteWorkflowExecutionRequest(namespace=yard.client.namespace, workflow_execution=execution)
    await yard.client.workflow_service.delete_workflow_execution(request)

    async def gone() -> bool:
        return not await yard.runs(case)

    await yard.until(gone, looking=False)


HANDS = [
    pytest.param(terminate, "workflow_terminated", id="terminated"),
    pytest.param(cancel, "workflow_cancelled", id="cancelled"),
    pytest.param(delete, "workflow_missing", id="deleted"),
]


class TestByHand:
    """Somebody with Temporal's UI."""

    @pytest.mark.parametrize(("act", "finding"), HANDS)
    async def test_a_case_in_the_middle_of_a_retry_goes_on(self, yard, act, finding):
        case = await retrying(yard)
        await act(yard, case)
        await case.time_passes(timedelta(hours=1))
        await yard.stands(case, "shipped", "done")
        assert finding in await yard.found(case)
        assert yard.once()

    @pytest.mark.parametrize(("act", "finding"), HANDS)
    async def test_a_blocked_case_waits_for_its_owner_as_before(self, yard, act, finding):
        case = await blocked(yard)
        await act(yard, case)

        async def seen() -> bool:
            return (await yard.found(case))[:1] == [finding]

        await yard.until(seen)
        await yard.stands(case, "shipping", "blocked")
        await case.override("retry")
        await yard.stands(case, "shipped", "done", looking=False)
        assert yard.once()

    async def test_a_case_at_rest_meets_its_deadline_all_the_same(self, yard):
        case = await at_rest(yard)
        await terminate(yard, case)
        await case.time_passes(LONG_AGO)

        async def escalated() -> bool:
            return "case.escalated" in await case.timeline()

        await yard.until(escalated)
        assert (await yard.found(case))[:1] == ["workflow_terminated"]

    async def test_a_reset_that_left_the_messages_out_is_found(self, yard):
        """The run begins again at its first task and has forgotten the shipment."""
        case = await yard.desk.open()
        await yard.stands(case, "draft", "waiting", looking=False)
        yard.desk.partner.next(None, rejected())
        await case.take("ship")
        await yard.stands(case, "shipping", "blocked", looking=False)
        await reset_to_the_beginning(yard, case)

        async def seen() -> bool:
            return (await yard.found(case))[:1] == ["workflow_reset"]

        await yard.until(seen)
        await yard.stands(case, "shipping", "blocked")
        await case.override("retry")
        await yard.stands(case, "shipped", "done", looking=False)
        assert yard.once()

    async def test_what_is_closed_needs_no_workflow(self, yard):
        case = await yard.desk.open()
        await case.take("cancel")
        await yard.stands(case, "cancelled", "done", looking=False)
        await delete(yard, case)
        for _ in range(3):
            await yard.reconciler.look()
        assert await yard.found(case) == []
        assert not await yard.runs(case)

    async def test_made_up_news_are_forgotten(self, yard):
        """Somebody signals orders and news of a version that Postgres will not reach for years."""
        case = await blocked(yard)
        status = await yard.workflow(case).query("status", result_type=dict)
        lie = {**status, "state": "shipped", "condition": "done", "version": 10**9, "operation": None}
        order = Order("made-up", "transition", "ship", fence=10**9, takes_over=True, finished=True)
        await yard.workflow(case).signal(PERFORM, Perform([order], News(10**9, lie)))

        async def misled() -> bool:
            return (await yard.workflow(case).query("status", result_type=dict)).get("version") == 10**9

        await yard.until(misled, looking=False)
        await yard.stands(case, "shipping", "blocked")
        await case.override("retry")
        await yard.stands(case, "shipped", "done", looking=False)

    async def test_made_up_news_that_close_the_workflow_are_repaired(self, yard):
        case = await at_rest(yard)
        status = await yard.workflow(case).query("status", result_type=dict)
        lie = {**status, "version": 10**9}
        order = Order("made-up", "transition", "scrap", fence=10**9, takes_over=True, finished=True)
        await yard.workflow(case).signal(PERFORM, Perform([order], News(10**9, lie, final=True)))

        async def closed() -> bool:
            return not await yard.runs(case)

        await yard.until(closed, looking=False)
        await yard.stands(case, "stored", "waiting")
        assert (await yard.found(case))[:1] == ["workflow_closed"]


async def reset_to_the_beginning(yard: Yard, case: Handle) -> None:
    handle = yard.workflow(case)
    first = 0
    async for event in handle.fetch_history_events():
        if event.HasField("workflow_task_completed_event_attributes"):
            first = event.event_id
            break
    from temporalio.api.enums.v1 import ResetReapplyType

    await yard.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=yard.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            reason="by hand",
            workflow_task_finish_event_id=first,
            request_id=str(uuid4()),
            reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_NONE,
        )
    )


class TestNoProgress:
    async def test_an_operation_that_never_reached_temporal_is_found(self, idle):
        yard = idle
        async with yard.working():
            case = await yard.desk.open()
            await yard.stands(case, "draft", "waiting", looking=False)
            await delete(yard, case)
        await case.take("ship")
        await yard.lose_messages(case)
        async with yard.working():
            await yard.stands(case, "shipped", "done")
        assert (await yard.found(case))[:1] == ["order_unknown"]
        assert yard.once()

    async def test_an_attempt_that_nobody_makes_any_more_gets_going(self, yard):
        """Its worker died with its workflow; until its outcome is known, nobody may help either."""
        case = await retrying(yard)
        await terminate(yard, case)
        await case.time_passes(timedelta(hours=1))
        await case.begin("print_label")
        with pytest.raises(ActionNotAllowed) as refused:
            await case.override("retry", OPERATOR)
        assert refused.value.first_code == "attempt_running"
        await passes(yard, case)
        assert case.id not in await overdue(yard), "while the lease lives, somebody may be at it"
        await case.time_passes(timedelta(minutes=5))
        assert case.id in await overdue(yard)
        await yard.stands(case, "shipped", "done")
        assert (await yard.found(case))[:1] == ["workflow_terminated"]
        assert "lease_lapsed" in {entry.data.get("code") for entry in await case.entries()}
        assert yard.once()

    async def test_the_same_finding_is_told_once_and_tried_again_later_and_later(self, idle):
        yard = idle
        async with yard.working():
            case = await yard.desk.open()
            await yard.stands(case, "draft", "waiting", looking=False)
        await case.take("ship")
        await yard.lose_messages(case)
        before = len(await case.messages())
        wakes, patient = [], yard.new_reconciler(patience=timedelta(minutes=1))
        for again in range(4):  # nobody works on it
            reconciler = yard.new_reconciler(patience=timedelta(minutes=1)) if again == 2 else patient
            await passes(yard, case)
            await reconciler.look()
            await yard.lose_messages(case)
            wakes.append(len(await case.messages()) - before)
        assert wakes == [1, 1, 2, 2], "the second look of each reconciler rests"
        assert len(await yard.found(case)) == 1

    async def test_what_the_outbox_still_promises_is_not_overdue(self, idle):
        yard = idle
        async with yard.working():
            case = await yard.desk.open()
            await yard.stands(case, "draft", "waiting", looking=False)
        await case.take("ship")
        await passes(yard, case)
        await yard.reconciler.look()
        assert await yard.found(case) == []

    async def test_a_task_that_keeps_failing_blocks_for_engineering_until_it_succeeds(self, yard, monkeypatch):
        monkeypatch.setattr("caseward.reconciler.FAILED_TASKS", 2)
        case = await yard.desk.open()
        await yard.stands(case, "draft", "waiting", looking=False)
        yard.stories.broken = True
        yard.desk.partner.next(None, rejected())
        await case.take("ship")

        async def is_blocked() -> bool:
            return (await case.row()).condition == "blocked"

        await yard.until(is_blocked)
        info = (await case.document()).condition_info
        assert (info.cause, info.recovery_owner) == ("workflow_task_failing", "engineering")
        yard.stories.broken = False

        async def goes_on() -> bool:
            return "operation.unblocked" in await case.timeline()

        await yard.until(goes_on)
        await yard.stands(case, "shipping", "blocked")
        assert (await case.document()).condition_info.cause == "rejected"
        await case.override("retry")
        await yard.stands(case, "shipped", "done")
        timeline = await case.timeline()
        assert timeline.count("operation.blocked") == timeline.count("operation.unblocked") == 1
        assert yard.once()


async def passes(yard: Yard, case: Handle) -> None:
    """The case has not changed for long enough to be overdue."""
    async with yard.database.transaction() as session:
        earlier = {"changed_at": Case.changed_at - timedelta(minutes=10)}
        await session.execute(update(Case).where(Case.id == case.id).values(earlier))


async def overdue(yard: Yard, patience: timedelta = PATIENCE) -> set[UUID]:
    async with yard.database.transaction() as session:
        found = await repair.overdue(session, yard.desk.catalogue, patience=patience, limit=50, without=())
    return {case.case_id for case in found}


class TestTemporalIsAnother:
    async def test_a_new_namespace_gets_its_search_attributes_and_every_case_that_is_not_closed(self, idle, grounds):
        closed = await idle.desk.open()
        async with idle.working():
            await closed.take("cancel")
            await idle.stands(closed, "cancelled", "done", looking=False)
            resting, stuck, busy = await at_rest(idle), await blocked(idle), await retrying(idle)
        await busy.time_passes(timedelta(hours=1))
        # From here on nobody works for the old one: messages that a dispatcher of it took would be lost to the new.
        entries = len(await closed.entries())
        lost = Yard(idle.database, await grounds.namespace(), idle.desk.process)
        lost.desk.partner, lost.stories = idle.desk.partner, idle.stories
        while not await lost.reconciler.prepare():
            pass
        attributes = await lost.client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=lost.client.namespace)
        )
        assert set(SEARCH_ATTRIBUTES) <= set(attributes.custom_attributes)
        async with lost.working():
            await lost.stands(resting, "stored", "waiting")
            await lost.stands(stuck, "shipping", "blocked")
            await lost.stands(busy, "shipped", "done")
            await stuck.override("retry")
            await lost.stands(stuck, "shipped", "done")
        for case in (resting, stuck, busy):
            assert "temporal_new" in await lost.found(case)
        assert len(await closed.entries()) == entries
        assert lost.once()

    async def test_missing_search_attributes_are_added(self, yard):
        operator = yard.client.operator_service
        await operator.remove_search_attributes(
            RemoveSearchAttributesRequest(namespace=yard.client.namespace, search_attributes=["CasewardState"])
        )
        await Temporal(yard.client).namespace()
        have = await operator.list_search_attributes(ListSearchAttributesRequest(namespace=yard.client.namespace))
        assert "CasewardState" in have.custom_attributes

    async def test_one_restored_from_an_older_backup_shows_by_its_mark(self, yard):
        """Its data are what they were; that Postgres is two marks ahead is what gives it away."""
        case = await blocked(yard)
        async with yard.database.transaction() as session:
            known = await session.get_one(Known, "temporal")
            known.value = {**known.value, "mark": known.value["mark"] + 5}
        await yard.stands(case, "shipping", "blocked")

        async def seen() -> bool:
            return (await yard.found(case))[:1] == ["temporal_restored"]

        await yard.until(seen)
        assert await yard.pauses() == []

    async def test_marks_that_rise_together_find_nothing(self, yard):
        case = await blocked(yard)
        for _ in range(5):
            await yard.reconciler.look()
            await yard.new_reconciler().look()
        assert await yard.found(case) == []
        assert await yard.pauses() == []


class TestPostgresIsAnother:
    async def test_a_restored_backup_starts_paused_and_holds_what_temporal_knows_more_of(self, grounds):
        """The same cluster, an older copy of the database: only what Temporal remembers can tell."""
        async with grounds.yard(own_namespace=True) as yard:
            async with yard.working():
                lost = await yard.desk.open()
                kept = await blocked(yard)
                await yard.stands(lost, "draft", "waiting", looking=False)
                await yard.reconciler.look()
            await yard.database.close()
            backup = await grounds.copy()
            async with yard.working():
                ship = await lost.take("ship")
                await yard.stands(lost, "shipped", "done", looking=False)
                await yard.reconciler.look()
        database = Database.connect(backup, pool_size=4)
        try:
            restored = Yard(database, yard.client, yard.desk.process)
            restored.desk.partner, restored.stories = yard.desk.partner, yard.stories
            await restored.reconciler.prepare()
            assert [pause.key for pause in await restored.pauses()] == [f"process:{yard.desk.process.name}"]
            lost, kept = Handle(restored.desk, lost.id), Handle(restored.desk, kept.id)

            async def compared() -> bool:
                return await known(database, "comparing") is None

            async with restored.working():
                await restored.until(compared)
            held = next(entry for entry in await lost.entries() if entry.type == "case.held")
            assert held.data["operations"] == [str(ship.operation_id)]
            paused = (await lost.row()).paused
            assert paused is not None
            assert str(ship.operation_id) in paused["reason"]
            assert (await kept.row()).paused is None
            assert (await restored.found(kept))[-1] == "postgres_restored"
            assert "postgres_restored" not in await restored.found(lost)
        finally:
            await database.close()

    @pytest.mark.parametrize("changed", ["system_identifier", "timeline_id"])
    async def test_another_cluster_or_timeline_is_paused_before_anything_begins(self, yard, changed):
        async with yard.database.transaction() as session:
            row = await session.get_one(Known, "postgres")
            row.value = {**row.value, changed: "1"}
        await yard.new_reconciler().prepare()
        pauses = await yard.pauses()
        assert [(pause.key, pause.actor_id) for pause in pauses] == [(f"process:{yard.desk.process.name}", "system")]
        await yard.new_reconciler().prepare()
        assert [pause.number for pause in await yard.pauses()] == [pauses[0].number], "said once"

    async def test_an_operation_that_only_temporal_knows_holds_its_case(self, yard):
        case = await at_rest(yard)
        order = Order(str(uuid4()), "transition", "abandon", fence=99, takes_over=True)
        status = await yard.workflow(case).query("status", result_type=dict)
        await terminate(yard, case)
        await yard.client.start_workflow(
            yard.desk.process.name,
            {"process": yard.desk.process.name, "case_id": str(case.id)},
            id=yard.workflow(case).id,
            task_queue="nobody",
            start_signal=PERFORM,
            start_signal_args=[Perform([order], News(99, {**status, "state": "abandoned"}))],
        )

        async def held() -> bool:
            return "case.held" in await case.timeline()

        await yard.until(held)
        assert await yard.pauses() == [], "one case is no proof against all others"
        before = await case.timeline()
        for _ in range(3):
            await yard.reconciler.look()
        assert await case.timeline() == before

    async def test_a_fresh_database_takes_an_old_namespace_as_its_own(self, idle):
        async with idle.database.transaction() as session:
            await session.execute(sql_delete(Known))
        fresh = Yard(idle.database, idle.client)
        await fresh.reconciler.look()
        assert await known(idle.database, "comparing") is None


async def known(database: Database, name: str) -> Known | None:
    async with database.transaction() as session:
        return await repair.recall(session, name)


class TestWake:
    async def test_is_refused_where_the_case_moved_on(self, yard):
        case = await yard.desk.open()
        version = (await case.row()).version
        await case.take("store", CLERK)
        async with yard.database.transaction() as session:
            assert await repair.wake(session, yard.desk.catalogue, case.id, "no_progress", version=version) is None
        assert await yard.found(case) == []

    async def test_changes_nothing_that_a_person_would_see_but_the_timeline(self, yard):
        case = await blocked(yard)
        before = await case.document()
        async with yard.database.transaction() as session:
            await repair.wake(session, yard.desk.catalogue, case.id, "no_progress")
        after = await case.document()
        assert after.condition_info == before.condition_info
        assert [(a.name, a.step, a.allowed) for a in after.actions] == [
            (a.name, a.step, a.allowed) for a in before.actions
        ]
        assert await case.chain_break() is None

    async def test_is_loaded_by_a_run_that_believes_in_a_later_fence(self, yard):
        case = await blocked(yard)
        async with yard.database.transaction() as session:
            answer = await load(session, yard.desk.catalogue, case.id)
        assert answer.fence == (await case.row()).fence


async def test_a_namespace_that_does_not_exist_is_made(grounds):
    client: Client = await grounds.namespace()
    seen = None
    while seen is None:
        try:
            seen = await Temporal(client).namespace()
        except RPCError:  # until all of Temporal knows it
            continue
    assert seen.mark == 0
