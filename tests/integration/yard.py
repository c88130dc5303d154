"""A yard: cases worked on by real workflows, with Postgres and Temporal of the test's own, and a reconciler to call.

Every yard has a namespace and a process of its own. The partner is the desk's, scripted; the reconciler looks when the
test says so, with little patience.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
from sqlalchemy import delete, select, text
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from caseward.activity import Call, EffectRunner, effect, engine_activities, step_activities, undo
from caseward.db.session import Database
from caseward.db.tables import Known, Message, Operation, Pause, PauseChange
from caseward.messages import TASK_QUEUE, workflow_id
from caseward.outbox.dispatcher import Dispatcher
from caseward.outbox.store import TO_TEMPORAL
from caseward.outbox.to_temporal import ToTemporal
from caseward.process import Process, Retry
from caseward.reconciler import Pace, Reconciler
from caseward.workflow.case import CaseWorkflow, stories_of
from tests.integration.desk import Desk, Handle
from tests.integration.parcels import Parcel, Partner, Receipt, parcels, step

PATIENCE = timedelta(milliseconds=300)
WITHIN = 120  # seconds until a test gives up
BOOK = step("book_carrier")
LABEL = step("print_label", retry=Retry(waits=(timedelta(hours=1), timedelta(minutes=1))))
_numbers = count(1)


class ParcelSteps:
    """Each step one request to the partner."""

    def __init__(self, partner: Partner) -> None:
        self.partner = partner

    @effect(BOOK)
    async def book_carrier(self, call: Call[Parcel]) -> Receipt:
        return await call.send(self.partner.repeatable, to=call.subject.to, until=call.accepted_at)

    @undo(BOOK)
    async def unbook(self, call: Call[Parcel], done: Receipt) -> None:
        await call.send(self.partner.repeatable, number=done.number)

    @effect(LABEL)
    async def print_label(self, call: Call[Parcel]) -> Receipt:
        return await call.send(self.partner.repeatable, to=call.subject.to, until=call.accepted_at)

    @undo(LABEL)
    async def tear_label(self, call: Call[Parcel], done: Receipt) -> None:
        await call.send(self.partner.repeatable, number=done.number)


def stories(process: Process) -> type[CaseWorkflow]:
    """Its workflow; `broken` makes every task of it fail, as code does that old histories can't follow."""

    class Stories(CaseWorkflow):
        broken = False

        def perform(self, told: Any = None) -> None:
            if type(self).broken:
                message = "this version can't tell it"
                raise RuntimeError(message)
            super().perform(told)

        async def ship(self) -> None:
            await self.step(BOOK)
            await self.step(LABEL)

        async def ship_corrected(self) -> None:
            await self.ship()

    Stories.__qualname__ = "Stories"
    from temporalio import workflow

    from caseward.messages import PERFORM, Perform

    Stories.perform.__annotations__["told"] = Perform | None
    Stories.perform = workflow.signal(name=PERFORM)(Stories.perform)
    return stories_of(process)(Stories)


class Yard:
    """One process with its people, partner, workflows, dispatcher and reconciler."""

    def __init__(self, database: Database, client: Client, process: Process | None = None) -> None:
        self.database, self.client = database, client
        process = process or parcels(BOOK, LABEL, name=f"parcel_{next(_numbers)}")
        self.desk = Desk(database, process)
        self.stories = stories(process)
        self.reconciler = self.new_reconciler()
        self._dispatcher: Dispatcher | None = None
        self.seen: list[Any] = []
        """What `stands` saw last: the case, and what its workflow answered."""

    def new_reconciler(self, **pace: Any) -> Reconciler:
        """One that remembers nothing, as after a restart."""
        given = {"patience": PATIENCE, "round_every": timedelta(0), "mark_every": timedelta(0), **pace}
        return Reconciler(self.database, self.client, self.desk.catalogue, Pace(**given))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """With a worker and a dispatcher."""
        activities: list[Any] = engine_activities(
            self.database, self.desk.catalogue, signal_overrides=frozenset({"retry"})
        )
        runner = EffectRunner(self.database, self.desk.catalogue)
        activities += step_activities(self.desk.process, ParcelSteps(self.desk.partner), runner)
        worker = Worker(
            self.client,
            task_queue=TASK_QUEUE,
            workflows=[self.stories],
            activities=activities,
            workflow_runner=UnsandboxedWorkflowRunner(),
        )

        async def parked(message: Any, error: str) -> None:
            raise AssertionError(error)

        dispatcher = Dispatcher(self.database, {TO_TEMPORAL: ToTemporal(self.client, self.desk.catalogue)}, parked)
        self._dispatcher = dispatcher
        async with worker:
            dispatching = asyncio.create_task(dispatcher.run())
            try:
                yield
            finally:
                dispatching.cancel()
                await asyncio.wait([dispatching])

    async def until(self, holds: Callable[[], Awaitable[Any]], *, looking: bool = True) -> None:
        """Until it holds, with the reconciler looking again and again, or without."""
        try:
            async with asyncio.timeout(WITHIN):
                while not await holds():
                    if self._dispatcher is not None:
                        self._dispatcher.wake()
                    if looking:
                        await self.reconciler.look()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            message = f"not within {WITHIN} s; seen last: {self.seen}"
            raise AssertionError(message) from None

    async def stands(self, case: Handle, state: str, condition: str, *, looking: bool = True) -> None:
        """Until the case is there, and its workflow says so too."""

        async def there() -> bool:
            row = await case.row()
            self.seen = [row.state, row.condition, row.version]
            if (row.state, row.condition) != (state, condition) or (not row.final and not await self.runs(case)):
                return False
            try:
                status = await self.workflow(case).query("status", result_type=dict)
            except RPCError as fault:
                self.seen.append(fault.message)
                return False
            self.seen.append(status)
            return (status.get("state"), status.get("condition"), status.get("version")) == (
                *(state, condition),
                row.version,
            )

        await self.until(there, looking=looking)

    def workflow(self, case: Handle) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(workflow_id(self.desk.process.name, case.id))

    async def runs(self, case: Handle) -> bool:
        try:
            return (await self.workflow(case).describe()).status == WorkflowExecutionStatus.RUNNING
        except RPCError:
            return False

    async def found(self, case: Handle) -> list[str]:
        """What the reconciler found, by the timeline."""
        return [entry.data["finding"] for entry in await case.entries() if entry.type == "case.woken"]

    async def pauses(self) -> list[Pause]:
        async with self.database.transaction() as session:
            return list(await session.scalars(select(Pause).where(Pause.state == "paused")))

    async def lose_messages(self, case: Handle) -> None:
        """What the dispatcher believes delivered never arrived."""
        async with self.database.transaction() as session:
            for model, column in ((Message, Message.case_id), (Operation, Operation.case_id)):
                await session.execute(
                    text(f"UPDATE {model.__tablename__} SET dispatched_at = now() WHERE {column.key} = :id"),
                    {"id": case.id},
                )

    def once(self) -> bool:
        """No outside change happened twice."""
        happened = self.desk.partner.happened
        return len(happened) == len(set(happened))


class Grounds:
    """Postgres and Temporal for yards."""

    def __init__(self, database_url: str, temporal: str) -> None:
        self.database_url, self.temporal = database_url, temporal
        self._copies = count(1)
        self._client: Client | None = None

    @asynccontextmanager
    async def yard(self, *, own_namespace: bool = False) -> AsyncIterator[Yard]:
        """A new one where nobody works yet."""
        async with AsyncExitStack() as parts:
            database = Database.connect(self.database_url, pool_size=6)
            parts.push_async_callback(database.close)
            async with database.transaction() as session:
                await session.execute(delete(Known).where(Known.name != "temporal"))
                await session.execute(delete(PauseChange))
                await session.execute(delete(Pause))
                await session.execute(
                    text("UPDATE outbox_messages SET dispatched_at = now() WHERE dispatched_at IS NULL")
                )
            if self._client is None or own_namespace:
                client = await self.namespace()
                self._client = self._client or client
            else:
                client = self._client
            yard = Yard(database, client)
            async with asyncio.timeout(WITHIN):
                while not await yard.reconciler.prepare():  # a new namespace is not known to all of Temporal at once
                    await asyncio.sleep(0.1)
            yield yard

    async def namespace(self) -> Client:
        """A client of a namespace that nobody has created yet."""
        return await Client.connect(self.temporal, namespace=f"yard-{next(_numbers)}")

    async def copy(self) -> str:
        """A backup of the database, as another database of the same cluster; the address of it."""
        name = f"backup_{next(self._copies)}"
        head, _, original = self.database_url.rpartition("/")
        maintenance = f"{head}/template1".replace("+psycopg", "", 1)
        async with await psycopg.AsyncConnection.connect(maintenance, autocommit=True) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (original,)
            )
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{original}"')
        return f"{head}/{name}"
