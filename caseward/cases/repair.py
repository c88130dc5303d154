"""Repair: what the reconciler may do to a case, and what it asks Postgres for. It decides no business.

It wakes a case's workflow, blocks what its workflow can't tell, or holds a case of which Temporal knows more than
Postgres; each once for a finding and version, with a timeline entry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, and_, case, exists, func, literal, null, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import breaker
from caseward.cases.locked import LockedCase, lock_case
from caseward.cases.operations import action_title, block
from caseward.cases.pauses import ensure, process_key
from caseward.db.session import database_now
from caseward.db.tables import Attempt, Case, Effect, Entry, Known, Message, Operation, Pause
from caseward.outbox.store import TO_MAIL
from caseward.process import ENGINEERING, Catalogue
from caseward.situation import SYSTEM

Finding = Literal[
    "workflow_missing",
    "order_unknown",
    "workflow_terminated",
    "workflow_cancelled",
    "workflow_failed",
    "workflow_closed",
    "workflow_reset",
    "workflow_disagrees",
    "no_progress",
    "temporal_new",
    "temporal_restored",
    "postgres_restored",
]
FOUND: Mapping[Finding, str] = {
    "workflow_missing": "Temporal had no workflow of it.",
    "order_unknown": "Temporal did not know of the accepted operation.",
    "workflow_terminated": "Somebody had terminated its workflow.",
    "workflow_cancelled": "Somebody had cancelled its workflow.",
    "workflow_failed": "Its workflow had failed.",
    "workflow_closed": "Its workflow had closed too early.",
    "workflow_reset": "Somebody had reset its workflow.",
    "workflow_disagrees": "Its workflow believed that it stood elsewhere.",
    "no_progress": "Its workflow ran and did not go on.",
    "temporal_new": "Temporal's data was lost; its namespace is a new one.",
    "temporal_restored": "Temporal was restored from an older backup.",
    "postgres_restored": "Postgres was restored from an older backup.",
}
FAILING_TASK = "workflow_task_failing"
RESUME_RATE = 10  # cases a second, when somebody resumes what a restore has paused


@dataclass(frozen=True)
class Standing:
    """As much of a case as comparing it with its workflow takes."""

    case_id: UUID
    process: str
    version: int
    state: str
    condition: str
    recovery_owner: str | None
    operation_id: UUID | None
    begun: bool
    """Something of the operation in flight has run."""
    final: bool


_COLUMNS = (
    Case.id,
    Case.process,
    Case.version,
    Case.state,
    Case.condition,
    Case.recovery_owner,
    Case.operation_id,
    Operation.started_at.is_not(None),
    Case.final,
)
_STANDING = select(*_COLUMNS).outerjoin(Operation, Operation.id == Case.operation_id)
# What waits in the outbox will still come; a message too many would only tell of an outage of Temporal's.
_PROMISED = exists().where(
    Message.case_id == Case.id,
    Message.dispatched_at.is_(None),
    ~Message.parked,
    Message.destination != TO_MAIL,  # moves nothing on
)


def _standing(row: Row[*tuple[Any, ...]]) -> Standing:
    return Standing(*row)


async def overdue(
    session: AsyncSession, catalogue: Catalogue, *, patience: timedelta, limit: int, without: Iterable[UUID]
) -> list[Standing]:
    """Cases that should have gone on by themselves at least `patience` ago: the longest forgotten first.

    What waits for a person is never overdue, nor is what the outbox still promises.
    """
    before = func.clock_timestamp() - patience
    mine = Effect.driven_by == Case.operation_id
    due_by = case(
        (Effect.state == "running", Attempt.lease_until), else_=func.coalesce(Effect.next_attempt_at, Effect.answer_by)
    )
    next_due = (
        select(func.min(due_by))
        .select_from(Effect)
        .outerjoin(Attempt, and_(Attempt.effect_key == Effect.key, Attempt.number == Effect.attempt_count))
        .where(mine, Effect.state.in_(("running", "retrying", "waiting")))
        .correlate(Case)
        .scalar_subquery()
    )
    asks_a_person = or_(
        Operation.blocked.is_not(None),
        exists().where(mine, Effect.state.in_(("blocked", "paused"))),
    )
    # Where nothing is under way and nobody is asked, the next step should have begun with the last change.
    stuck = func.coalesce(next_due, case((asks_a_person, null()), else_=Case.changed_at)) < before
    found = await session.execute(
        _STANDING.where(
            Case.process.in_(list(catalogue)),
            Case.paused.is_(None),
            Case.id.not_in(list(without)),
            or_(
                and_(Case.operation_id.is_not(None), Case.changed_at < before, stuck),
                and_(Case.operation_id.is_(None), Case.deadline_at < before, Case.changed_at < before),
            ),
            ~_PROMISED,
        )
        .order_by(Case.changed_at)
        .limit(limit)
    )
    return [_standing(row) for row in found]


async def unfinished(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    after: UUID | None,
    limit: int,
    in_flight: bool | None = None,
    quiet_for: timedelta | None = None,
) -> list[Standing]:
    """A page of the cases that need a workflow, by id: all, or only those with (without) an operation in flight."""
    query = _STANDING.where(
        Case.process.in_(list(catalogue)), or_(~Case.final, Case.operation_id.is_not(None))
    ).order_by(Case.id)
    if after is not None:
        query = query.where(Case.id > after)
    if in_flight is not None:
        query = query.where(Case.operation_id.is_not(None) if in_flight else Case.operation_id.is_(None))
    if quiet_for is not None:
        query = query.where(Case.changed_at < func.clock_timestamp() - quiet_for, ~_PROMISED)
    return [_standing(row) for row in await session.execute(query.limit(limit))]


async def every_case(session: AsyncSession, catalogue: Catalogue, *, after: UUID | None, limit: int) -> list[Standing]:
    """A page of all cases, closed ones too, by id."""
    query = _STANDING.where(Case.process.in_(list(catalogue))).order_by(Case.id).limit(limit)
    if after is not None:
        query = query.where(Case.id > after)
    return [_standing(row) for row in await session.execute(query)]


async def with_failing_task(session: AsyncSession, *, limit: int) -> list[Standing]:
    """Cases that are blocked because their workflow's task kept failing."""
    query = _STANDING.where(Case.condition == "blocked", Operation.blocked["cause"].astext == FAILING_TASK)
    return [_standing(row) for row in await session.execute(query.order_by(Case.changed_at).limit(limit))]


async def lacking(session: AsyncSession, operation_ids: Iterable[UUID]) -> list[UUID]:
    """Those of the operations that Postgres does not have."""
    named = set(operation_ids)
    have = set(await session.scalars(select(Operation.id).where(Operation.id.in_(named)))) if named else set[UUID]()
    return sorted(named - have)


async def wake(
    session: AsyncSession, catalogue: Catalogue, case_id: UUID, finding: Finding, *, version: int | None = None
) -> int | None:
    """Promise the case's workflow that it shall read how the case stands; None where the case moved on since `version`.

    Answers the version it has now. Said once: the same finding with nothing between is not told again.
    """
    work = await lock_case(session, catalogue, case_id)
    if version is not None and work.case.version != version:
        return None
    if not await _told_last(work, "case.woken", finding):
        work.entry("case.woken", finding=finding, found=FOUND[finding])
        work.touch()
    work.promise(None, resync=True)
    return work.case.version


async def hold(
    session: AsyncSession,
    catalogue: Catalogue,
    case_id: UUID,
    *,
    operations: Iterable[UUID] = (),
    told_version: int = 0,
) -> bool:
    """Pause a case of which Temporal knows more than Postgres, until engineering has looked; False where it doesn't."""
    work = await lock_case(session, catalogue, case_id)
    missing = await lacking(session, operations)
    if not missing and told_version <= work.case.version:
        return False
    if work.case.paused is not None:
        return True
    names = ", ".join(str(operation) for operation in missing)
    what = f"the operation {names}" if names else f"version {told_version} of it"
    found = f"Temporal knows {what}, which Postgres lacks."
    work.entry("case.held", found=found, operations=[str(operation) for operation in missing], version=told_version)
    pause_case(work, found)
    work.touch()
    work.promise(None, resync=True)  # what it believed stands in the entry; shown shall be what is true here
    return True


async def block_failing(
    session: AsyncSession, catalogue: Catalogue, case_id: UUID, *, version: int, attempts: int
) -> bool:
    """Block the operation whose workflow's task keeps failing; False where there is none, or the case moved."""
    work = await lock_case(session, catalogue, case_id)
    if work.case.version != version or work.operation is None or work.operation.blocked is not None:
        return False
    message = f"Its workflow's task failed {attempts - 1} times and is tried again; Temporal's Web UI says why"
    block(work, work.operation, cause=FAILING_TASK, message=message)
    return True


async def unblock(session: AsyncSession, catalogue: Catalogue, case_id: UUID, *, version: int) -> bool:
    """Take that back, now that the task is done."""
    work = await lock_case(session, catalogue, case_id)
    operation = work.operation
    if work.case.version != version or operation is None or operation.blocked is None:
        return False
    operation.blocked = None
    title = action_title(work, operation)
    work.entry("operation.unblocked", operation=operation, action=title, message="its workflow's task succeeded")
    work.touch()
    work.promise(None, resync=True)
    return True


async def _told_last(work: LockedCase, entry_type: str, finding: str) -> bool:
    last = await work.session.get(Entry, (work.case.id, work.case.timeline_number))
    return last is not None and last.type == entry_type and last.data.get("finding") == finding


# --- what the reconciler last knew of the servers ---------------------------------------------------------------------


async def recall(session: AsyncSession, name: str) -> Known | None:
    """What was known, locked against whoever else looks just now."""
    return await session.get(Known, name, with_for_update=True)


async def remember(session: AsyncSession, name: str, value: dict[str, Any]) -> None:
    """Know this from now on."""
    await session.execute(
        insert(Known)
        .values(name=name, value=value, changed_at=func.clock_timestamp())
        .on_conflict_do_update(
            index_elements=[Known.name], set_={"value": literal(value, Known.value.type), "changed_at": func.now()}
        )
    )


async def forget(session: AsyncSession, name: str) -> None:
    """No longer of interest."""
    found = await session.get(Known, name)
    if found is not None:
        await session.delete(found)
        await session.flush()


async def any_case(session: AsyncSession) -> bool:
    """There is at least one case."""
    return bool(await session.scalar(select(exists().where(Case.id.is_not(None)))))


async def cluster_identity(session: AsyncSession) -> dict[str, Any]:
    """Which cluster this is, and its timeline: another one after a restore to a new cluster or a failover."""
    row = (
        await session.execute(
            text(
                "SELECT system_identifier::text, substring(pg_walfile_name(pg_current_wal_insert_lsn()) FOR 8)"
                " FROM pg_control_system()"
            )
        )
    ).one()
    return {"system_identifier": row[0], "timeline_id": row[1]}


# --- pauses -----------------------------------------------------------------------------------------------------------


def pause_case(work: LockedCase, reason: str) -> None:
    """The case's own pause, by the system."""
    work.case.paused = {
        "since": work.now.isoformat(),
        "reason": reason,
        "by": SYSTEM.id,
        "via": SYSTEM.via,
        "owner": ENGINEERING,
        "deadlines": "frozen",
    }


async def pause_everything(session: AsyncSession, catalogue: Catalogue, reason: str) -> None:
    """Pause every process, by the system."""
    keys = [process_key(name) for name in sorted(catalogue)]
    await ensure(session, keys, await database_now(session))
    for key in keys:
        pause = await session.get_one(Pause, key, with_for_update=True, populate_existing=True)
        now = max(await database_now(session), pause.since)
        pause.frozen_since, pause.deadlines = pause.frozen_since or now, "frozen"
        pause.rate, pause.probe_at = RESUME_RATE, None
        breaker.change(session, pause, "paused", actor=SYSTEM, reason=reason, now=now, deadlines="frozen")
