"""The world of a drill: a Postgres and a Temporal that share one skipped clock, the sandbox, a worker."""

import asyncio
import sysconfig
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import text
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Worker

from caseward.activity import EffectRunner
from caseward.cases import breaker, outcomes, repair
from caseward.cases.parked import note_parked
from caseward.db.session import Database
from caseward.hearing import ToActivities
from caseward.messages import TASK_QUEUE
from caseward.objects import Objects
from caseward.outbox.dispatcher import Dispatcher
from caseward.outbox.store import TO_CALLBACKS, TO_TEMPORAL
from caseward.outbox.to_temporal import BUSINESS_KEY, ToTemporal
from caseward.process import Catalogue
from caseward.workflow.case import CONDITION, RECOVERY_OWNER, STATE
from caseward.workflow.sandbox import runner
from dev.stack import Stack
from settings import Settings
from worker import build_activities, connect_partners, find_workflows

DISPATCH_EVERY = 0.05  # seconds of real time
AHEAD = timedelta(milliseconds=20)  # a timer of Temporal's must not find Postgres a moment before it
QUIET = 0.15  # seconds of real time in which an outcome reaches the server, and the workflow sets its timer
DRIFT = timedelta(milliseconds=10)
MANY = 1_000_000
AT_ONCE = 60.0  # seconds of real time: what a partner does later than that, it does after the drill
POLL_EVERY = timedelta(hours=1)  # each question to a partner that takes its time is a stop of the clock for all
GRAIN = timedelta(seconds=2)
STOPPED_AFTER = 45.0  # seconds of real time for one leap, which takes some tenths
LEAP = timedelta(minutes=2)  # no further at once: the server answers a leap only when it is over

_CLOCK = (
    "CREATE SCHEMA drill",
    "CREATE TABLE drill.clock (ahead interval NOT NULL)",
    "INSERT INTO drill.clock VALUES ('0')",
    """CREATE FUNCTION drill.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    'SELECT pg_catalog.clock_timestamp() + (SELECT ahead FROM drill.clock)'""",
    "ALTER DATABASE postgres SET search_path = drill, pg_catalog, public",
)


class ClockStopped(Exception):
    """The time-skipping server skips no more: it lost count of who is at work. A new world is needed."""


@dataclass
class Clock:
    """One clock for Temporal and Postgres. It is moved only when everybody who plays waits for it."""

    temporal: WorkflowEnvironment
    client: Client
    database: Database
    partners_work: Callable[[], Awaitable[bool]]
    """Whether a partner is about to do what it acknowledged; partners live by the real time."""
    runs: set[str] = field(default_factory=set[str])
    """The workflows of the cases that are played now."""
    ahead: timedelta = timedelta(0)
    stopped: bool = False
    playing: int = 0
    _waiting: list[tuple[timedelta, asyncio.Event]] = field(default_factory=list[tuple[timedelta, asyncio.Event]])
    working: int = 0
    """Activities under way."""
    worked_at: float = 0.0
    """When the last one ended, by the loop's clock."""
    stirred: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """By case: set whenever one of its activities ends."""
    _setting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def agree(self) -> None:
        """Set Postgres to Temporal's time; never back."""
        async with self._setting:
            ahead = await self.temporal.get_current_time() - datetime.now(UTC)
            if ahead <= self.ahead - AHEAD + DRIFT:
                return
            self.ahead = ahead + AHEAD
            async with self.database.engine.begin() as connection:
                await connection.execute(text("UPDATE drill.clock SET ahead = :ahead"), {"ahead": self.ahead})

    def now(self) -> datetime:
        """As Postgres would say."""
        return datetime.now(UTC) + self.ahead

    def silent_for(self) -> float:
        """For how many real seconds no activity of any case was under way."""
        return 0.0 if self.working else asyncio.get_running_loop().time() - self.worked_at

    @asynccontextmanager
    async def attended(self) -> AsyncGenerator[None]:
        """Whoever plays inside must wait for the clock before it moves."""
        self.playing += 1
        try:
            yield
        finally:
            self.playing -= 1
            await self._move_if_all_wait()

    async def passes(self, by: timedelta) -> None:
        """Wait until the clock has moved by so much, or by less where somebody else wants to look earlier.

        Raises ClockStopped.
        """
        moved = asyncio.Event()
        self._waiting.append((by, moved))
        await self._move_if_all_wait()
        await moved.wait()
        if self.stopped:
            raise ClockStopped

    async def _move_if_all_wait(self) -> None:
        if self.stopped or not self._waiting or len(self._waiting) < self.playing:
            return
        waiting, self._waiting = self._waiting, []
        await self._until_quiet()
        # Who wants to look just after the first looks with it: each leap waits for everybody.
        first = min(by for by, _ in waiting)
        leap = min(LEAP, max(by for by, _ in waiting if by <= first + max(GRAIN, first / 4)))
        try:
            async with asyncio.timeout(STOPPED_AFTER):
                await self.temporal.sleep(leap)
        except (TimeoutError, RPCError):  # on a busy machine; whoever waits looks how far it came
            self.stopped = await self.temporal.get_current_time() - datetime.now(UTC) < self.ahead + leap / 2
        await self.agree()
        self.worked_at = asyncio.get_running_loop().time()  # what is due now has not begun yet
        for _, moved in waiting:
            moved.set()

    async def _until_quiet(self) -> None:
        """Postgres knows of an outcome before Temporal does: a leap meanwhile would time the activity out."""
        loop = asyncio.get_running_loop()
        while (  # noqa: ASYNC110 - it is quiet once for a while nothing happened
            self.working or loop.time() - self.worked_at < QUIET or await self.partners_work() or await self._at_work()
        ):
            await asyncio.sleep(QUIET / 4)

    async def _at_work(self) -> bool:
        """Temporal has an activity that no worker has taken yet, or an outcome has not reached it."""
        for run in tuple(self.runs):
            try:
                described = await self.client.get_workflow_handle(run).describe()
            except RPCError:  # not begun yet
                continue
            # Later attempts may wait for their turn, and need the clock to move.
            if any(pending.attempt == 1 for pending in described.raw_description.pending_activities):
                return True
        return False


class _OnTime(Interceptor):
    """Before an activity begins, Postgres has the time that made it begin."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - theirs
        """See the base."""
        return _OnTimeInbound(next, self._clock)


class _OnTimeInbound(ActivityInboundInterceptor):
    def __init__(self, following: ActivityInboundInterceptor, clock: Clock) -> None:
        super().__init__(following)
        self._clock = clock

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - theirs
        """See the base."""
        self._clock.working += 1
        try:
            await self._clock.agree()
            return await super().execute_activity(input)
        finally:
            self._clock.working -= 1
            self._clock.worked_at = asyncio.get_running_loop().time()
            self._clock.stirred[input.args[0].case_id].set()


@dataclass
class World:
    """Where cells are played."""

    catalogue: Catalogue
    database: Database
    temporal: Client
    clock: Clock
    sandbox: httpx2.AsyncClient
    objects: Objects
    dispatcher: Dispatcher
    outgoing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever accepts a command and has more to arrange before anybody hears of it."""

    async def dispatch(self) -> None:
        """Deliver what was promised, until cancelled."""
        while True:
            async with self.outgoing:
                await self.dispatcher.dispatch_due()
            await asyncio.sleep(DISPATCH_EVERY)

    async def fault(self, **order: Any) -> None:
        """Let a partner do something wrong."""
        (await self.sandbox.post("/_control/faults", json=order)).raise_for_status()

    async def start_anew(self, workflow: str, case_id: UUID) -> None:
        """End a run that says nothing any more, and wake its case, as the reconciler would.

        The time-skipping server can lose a run: it refuses to cancel an activity that has just ended, which a real
        server takes, and the run never gets another task.
        """
        self.clock.worked_at = asyncio.get_running_loop().time()
        handle = self.temporal.get_workflow_handle(workflow)
        with suppress(RPCError):  # it has ended meanwhile
            await handle.terminate("The server lost it")
        async with self.database.transaction() as session:
            await repair.wake(session, self.catalogue, case_id, "workflow_terminated")

    async def remind(self, key: str) -> None:
        """Call the partner, until it does what it owes under this key."""
        (await self.sandbox.post(f"/_control/promises/{key}")).raise_for_status()

    async def happened(self, key: str) -> int:
        """How often the partners did the effect of this key."""
        answer = await self.sandbox.get("/_control/ledger", params={"key": key})
        inside = await self.objects.noted(key) is not None  # done by an office of our own
        return len(answer.raise_for_status().json()) + inside


@asynccontextmanager
async def world_on(settings: Settings, catalogue: Catalogue) -> AsyncGenerator[World]:
    """A world of its own, gone at the end."""
    # Cells share their partners, and each of them would be the one case in a day that has such bad luck.
    breaker.THRESHOLD = MANY
    outcomes.POLL_EVERY = POLL_EVERY
    async with AsyncExitStack() as parts:
        stack = await parts.enter_async_context(Stack(settings, only=("postgres", "migrations", "sandbox")))
        plain = Database.connect(stack.database_url, pool_size=1)
        async with plain.engine.begin() as connection:
            for statement in _CLOCK:
                await connection.execute(text(statement))
        await plain.close()
        database = Database.connect(stack.database_url)
        parts.push_async_callback(database.close)
        server = Path(sysconfig.get_path("scripts")) / "temporal-test-server"
        temporal = await parts.enter_async_context(
            await WorkflowEnvironment.start_time_skipping(test_server_existing_path=str(server))
        )
        wanted = AddSearchAttributesRequest(namespace=temporal.client.namespace)
        for key in (STATE, CONDITION, RECOVERY_OWNER, BUSINESS_KEY):
            wanted.search_attributes[key.name] = key.indexed_value_type.value  # pyright: ignore[reportArgumentType]
        await temporal.client.operator_service.add_search_attributes(wanted)
        # A client of its own: the environment's moves the clock whenever somebody waits for a result.
        client = await Client.connect(temporal.client.service_client.config.target_host)
        sandbox = await parts.enter_async_context(
            httpx2.AsyncClient(base_url=settings.sandbox_url, trust_env=False, timeout=20)
        )

        async def partners_work() -> bool:
            promises = await sandbox.get("/_control/promises")
            return any(promise["due_in"] < AT_ONCE for promise in promises.raise_for_status().json())

        clock = Clock(temporal, client, database, partners_work)
        partners = connect_partners(settings)
        parts.push_async_callback(partners.aclose)
        effects = EffectRunner(database, catalogue)
        dispatcher = Dispatcher(
            database,
            {TO_TEMPORAL: ToTemporal(client, catalogue), TO_CALLBACKS: ToActivities(effects)},
            lambda message, error: note_parked(
                database, catalogue, case_id=message.case_id, destination=message.destination, error=error
            ),
        )
        await parts.enter_async_context(
            Worker(
                client,
                task_queue=TASK_QUEUE,
                workflows=find_workflows(catalogue),
                activities=build_activities(database, catalogue, partners, settings, effects),
                workflow_runner=runner(),
                interceptors=[_OnTime(clock)],
            )
        )
        objects = Objects.connect(settings.documents_url)
        world = World(catalogue, database, client, clock, sandbox, objects, dispatcher)
        dispatching = asyncio.create_task(world.dispatch())
        try:
            yield world
        finally:
            dispatching.cancel()
