"""The reconciler: Postgres against Temporal, again and again, beside what it repairs.

It decides no business: it wakes workflows, blocks what can't be told, and pauses where Postgres may have lost what it
promised. Racing the dispatcher, or itself in another process, only doubles a signal.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from caseward.cases import repair
from caseward.cases.repair import Finding, Standing
from caseward.db.session import Database
from caseward.failpoints import failpoint
from caseward.process import Catalogue
from caseward.reconciler.temporal import FAILED_TASKS, Namespace, Temporal, Told

PARALLEL = 8  # looks at Temporal at once
LONGEST_REST = timedelta(minutes=10)  # between two wakes of a case that does not go on

POSTGRES, TEMPORAL, WAKING, COMPARING = "postgres", "temporal", "waking", "comparing"


@dataclass(frozen=True)
class Pace:
    """How soon, how often, how fast."""

    patience: timedelta = timedelta(seconds=15)
    """How long a case may be overdue; longer than a worker's death and a busy queue take."""
    round_every: timedelta = timedelta(hours=1)
    """How often every case that is not closed is compared with its workflow, also one that waits for a person."""
    page: int = 50
    """Cases of one look; with a look every few seconds, this bounds the rate."""
    mark_every: timedelta = timedelta(seconds=15)
    """How often the marks rise: what was lost within that time only shows at the cases themselves."""
    rate: int = 25
    """Cases a second that are woken after a loss: a fifth of what Temporal takes, the rest is for the living."""

    @property
    def look_every(self) -> timedelta:
        """The pause between two looks."""
        return min(timedelta(seconds=5), max(self.patience / 2, timedelta(milliseconds=100)))


@dataclass
class _Rest:
    """A case that was woken, until it is looked at again."""

    version: int
    times: int
    until: float


class Reconciler:
    """One per worker process; the one whose turn it is calls `look` (see chores)."""

    def __init__(self, database: Database, client: Client, catalogue: Catalogue, pace: Pace | None = None) -> None:
        self._database = database
        self._temporal = Temporal(client)
        self._catalogue = catalogue
        self.pace = pace or Pace()
        self._rests: dict[UUID, _Rest] = {}
        self._round_after: UUID | None = None
        self._round_due = 0.0
        self._mark_due = 0.0
        self._clock: Callable[[], float] = time.monotonic
        self._log = structlog.get_logger("reconciler")

    async def prepare(self) -> bool:
        """Before a worker does anything: is this the Postgres, and the Temporal, that we knew? False: ask again."""
        await self._know_postgres()
        return await self._know_temporal()

    async def look(self) -> bool:
        """Look once at everything that is due; True where more is."""
        await self._know_postgres()
        if not await self._know_temporal():
            return False
        if await self._go_through(COMPARING, self._compare):
            return True
        if await self._go_through(WAKING, self._wake_page):
            return True
        await self._look_after_overdue()
        await self._look_after_blocked()
        await self._go_round()
        return False

    # --- the servers --------------------------------------------------------------------------------------------------

    async def _know_postgres(self) -> None:
        """Pause everything where this is another cluster or timeline than the one we knew."""
        try:
            async with self._database.transaction() as session:
                now = await repair.cluster_identity(session)
                known = await repair.recall(session, POSTGRES)
                if known is not None and known.value != now:
                    same_cluster = known.value["system_identifier"] == now["system_identifier"]
                    what = "another timeline of its cluster" if same_cluster else "another cluster"
                    await self._restored(session, f"this is {what} than the one known")
                if known is None or known.value != now:
                    await repair.remember(session, POSTGRES, now)
        except DBAPIError as fault:
            if getattr(fault.orig, "sqlstate", None) != "42501":
                raise
            self._log.warning("cluster_unknown", error="the database's user may not ask for it")

    async def _know_temporal(self) -> bool:
        """Compare the marks that Postgres and Temporal keep; False where Temporal is away."""
        try:
            suspicious = await self._compare_marks(await self._temporal.namespace(), sure=False)
            if suspicious:  # what was read before Postgres was locked may have been old
                await self._compare_marks(await self._temporal.namespace(), sure=True)
        except RPCError as fault:
            self._log.info("temporal_away", status=fault.status.name, error=fault.message[:200])
            return False
        return True

    async def _compare_marks(self, namespace: Namespace, *, sure: bool) -> bool:
        """Two numbers that rise together: the one that is behind was restored from a backup."""
        async with self._database.transaction() as session:
            known = await repair.recall(session, TEMPORAL)
            mine: int = known.value["mark"] if known else 0
            finding: Finding | None = None
            behind = namespace.mark > mine and (known is not None or await repair.any_case(session))
            if known is not None and known.value["namespace_id"] != namespace.id:
                finding, behind = "temporal_new", False
            elif namespace.mark < mine - 1:
                finding = "temporal_restored"
            if (finding or behind) and not sure:
                return True
            if behind:
                await self._restored(session, "Temporal remembers a later one")
            if finding:
                self._log.warning(finding)
                await repair.remember(session, WAKING, {"finding": finding, "in_flight": True, "after": None})
            if known is not None and not (finding or behind) and self._clock() < self._mark_due:
                return False
            # It rises only once the last one has arrived, so that Postgres is never more than one ahead.
            arrived = finding is not None or namespace.mark >= mine
            mark = max(mine, namespace.mark) + 1 if arrived else mine
            await repair.remember(session, TEMPORAL, {"namespace_id": namespace.id, "mark": mark})
        self._mark_due = self._clock() + self.pace.mark_every.total_seconds()
        try:
            await self._temporal.leave_mark(mark)
        except RPCError as fault:
            if fault.status != RPCStatusCode.PERMISSION_DENIED:
                raise
            self._log.info("mark_refused", error=fault.message[:200])
        return False

    async def _restored(self, session: Any, how: str) -> None:
        self._log.error("postgres_restored", how=how)
        reason = f"Postgres was restored from a backup or failed over: {how}. Resume once the cases are looked at."
        await repair.pause_everything(session, self._catalogue, reason)
        await repair.remember(session, COMPARING, {"after": None})

    # --- after a loss: every case, in pages ---------------------------------------------------------------------------

    async def _go_through(self, name: str, work: Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]]) -> bool:
        """Do one page of a task that is kept in Postgres, at a limited rate; True while there is more."""
        async with self._database.transaction() as session:
            kept = await repair.recall(session, name)
            task = kept.value if kept else None
        if task is None:
            return False
        following = await work(task)
        async with self._database.transaction() as session:
            if following is None:
                await repair.forget(session, name)
            else:
                await repair.remember(session, name, following)
        await asyncio.sleep(1)  # a page is what one second may have
        return True

    async def _wake_page(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """Wake every case that needs a workflow; those with an operation in flight first."""
        after = UUID(task["after"]) if task["after"] else None
        async with self._database.transaction() as session:
            page = await repair.unfinished(
                session, self._catalogue, after=after, limit=self.pace.rate, in_flight=task["in_flight"]
            )

        async def wake(case: Standing) -> None:
            await self._wake(case, cast("Finding", task["finding"]), at_any_version=True)

        await self._side_by_side(page, wake)
        if len(page) == self.pace.rate:
            return {**task, "after": str(page[-1].case_id)}
        return {**task, "in_flight": False, "after": None} if task["in_flight"] else None

    async def _compare(self, task: dict[str, Any]) -> dict[str, Any] | None:
        """Hold every case of which Temporal knows more than Postgres, and wake the others that are not closed."""
        after = UUID(task["after"]) if task["after"] else None
        async with self._database.transaction() as session:
            page = await repair.every_case(session, self._catalogue, after=after, limit=self.pace.rate)

        async def compare(case: Standing) -> None:
            seen = await self._temporal.look_at(case)
            if seen.run_id is not None and await self._held(case, await self._temporal.told(case, seen.run_id)):
                return
            if case.operation_id is not None or not case.final:
                await self._wake(case, "postgres_restored", at_any_version=True)

        await self._side_by_side(page, compare)
        return {"after": str(page[-1].case_id)} if len(page) == self.pace.rate else None

    # --- at all times: what is overdue, then everything ---------------------------------------------------------------

    async def _look_after_overdue(self) -> None:
        now = self._clock()
        self._rests = {
            case: rest for case, rest in self._rests.items() if rest.until + LONGEST_REST.total_seconds() > now
        }
        resting = [case for case, rest in self._rests.items() if rest.until > now]
        async with self._database.transaction() as session:
            found = await repair.overdue(
                session, self._catalogue, patience=self.pace.patience, limit=self.pace.page, without=resting
            )
        await self._side_by_side(found, self._look_after_one)

    async def _look_after_one(self, case: Standing) -> None:
        """Something should have happened by itself: find out why it did not, and see that it does."""
        await self._repair(case, otherwise="no_progress")

    async def _look_after_blocked(self) -> None:
        """Take a block back whose cause is gone."""
        async with self._database.transaction() as session:
            found = await repair.with_failing_task(session, limit=self.pace.page)

        async def again(case: Standing) -> None:
            seen = await self._temporal.look_at(case)
            if seen.found is not None or seen.failed_tasks < FAILED_TASKS:
                async with self._database.transaction() as session:
                    await repair.unblock(session, self._catalogue, case.case_id, version=case.version)

        await self._side_by_side(found, again)

    async def _go_round(self) -> None:
        """Compare a page of all cases that need a workflow; from the beginning again when the round's time is over."""
        now = self._clock()
        if self._round_after is None:
            if now < self._round_due:
                return
            self._round_due = now + self.pace.round_every.total_seconds()
        async with self._database.transaction() as session:
            page = await repair.unfinished(
                session,
                self._catalogue,
                after=self._round_after,
                limit=self.pace.page,
                quiet_for=self.pace.patience,
            )
        resting = {case for case, rest in self._rests.items() if rest.until > now}
        await self._side_by_side([case for case in page if case.case_id not in resting], self._compare_one)
        self._round_after = page[-1].case_id if len(page) == self.pace.page else None

    async def _compare_one(self, case: Standing) -> None:
        await self._repair(case, otherwise=None)

    async def _repair(self, case: Standing, *, otherwise: Finding | None) -> None:
        """Look at the case's workflow and do what follows; `otherwise` where nothing is wrong with it."""
        seen = await self._temporal.look_at(case)
        finding = seen.found or otherwise
        if seen.run_id is None:
            if finding is not None:
                await self._wake(case, finding)
            return
        if seen.found is None and seen.failed_tasks >= FAILED_TASKS:
            async with self._database.transaction() as session:
                await repair.block_failing(
                    session, self._catalogue, case.case_id, version=case.version, attempts=seen.failed_tasks
                )
            return
        if seen.found is None and not seen.agrees:
            finding = "workflow_disagrees"
        if finding is None:
            return
        told = await self._temporal.told(case, seen.run_id)
        if await self._held(case, told):
            return
        await self._wake(case, "workflow_reset" if told.reset and seen.found is None else finding)

    async def _held(self, case: Standing, told: Told) -> bool:
        """Hold the case where its workflow was told of more than Postgres has."""
        async with self._database.transaction() as session:
            missing = await repair.lacking(session, told.operations)
        if not missing and told.version <= case.version:
            return False
        async with self._database.transaction() as session:
            held = await repair.hold(
                session, self._catalogue, case.case_id, operations=missing, told_version=told.version
            )
        if held:
            self._log.error("case_held", case=str(case.case_id), lacking=[str(operation) for operation in missing])
        return held

    async def _wake(self, case: Standing, finding: Finding, *, at_any_version: bool = False) -> None:
        async with self._database.transaction() as session:
            version = await repair.wake(
                session, self._catalogue, case.case_id, finding, version=None if at_any_version else case.version
            )
        if version is None:
            return  # it goes on by itself
        await failpoint("reconciler.woken", case.case_id)
        rest = self._rests.get(case.case_id)
        times = rest.times + 1 if rest is not None and rest.version == case.version else 0
        pause = min(self.pace.patience.total_seconds() * 2**times, LONGEST_REST.total_seconds())
        self._rests[case.case_id] = _Rest(version, times, self._clock() + pause)
        self._log.info("woken", case=str(case.case_id), finding=finding, times=times + 1)

    async def _side_by_side(self, cases: Iterable[Standing], work: Callable[[Standing], Awaitable[None]]) -> None:
        """Do this for each. Raises RPCError where Temporal is away; what is wrong with one case stops no other."""
        away: list[RPCError] = []
        slots = asyncio.Semaphore(PARALLEL)

        async def one(case: Standing) -> None:
            async with slots:
                try:
                    if not away:
                        await work(case)
                except RPCError as fault:
                    away.append(fault)
                except Exception as fault:  # noqa: BLE001 - told to engineering, tried again with the next look
                    self._log.exception("case_not_repaired", case=str(case.case_id), error=type(fault).__name__)

        async with asyncio.TaskGroup() as tasks:
            for case in cases:
                tasks.create_task(one(case))
        if away:
            raise away[0]
