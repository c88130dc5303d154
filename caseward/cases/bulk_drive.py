"""The chore that drives bulk runs: the next cases have their turn, and what became of the others is read and kept.

`drive` takes ONE transaction a turn under the locks of the unfinished runs, so that two who do it at once don't begin
twice as many; then one transaction for each case, in which its override is accepted by the same command as any other
and its item says so. Whoever dies leaves rows from which the next one goes on.

The rate. A case counts from the instant it begins until a second after its outcome was seen, and no more than `rate`
may count at once. What reaches the partner lies between those instants, so in no second more than `rate` requests do,
however unevenly the work gets there; and a partner that is slow gets fewer.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import structlog
from sqlalchemy import and_, bindparam, exists, func, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from caseward.bulk import FAILURES, IN_FLIGHT, RECENT, UNDER_WAY, Bounds, RunState, Standing, next_move, verified
from caseward.cases.bulk import note, stop_run
from caseward.cases.commands import request_override
from caseward.cases.envelope import Envelope, OfBulk
from caseward.db.session import Database, database_now
from caseward.db.tables import BulkItem, BulkRun, Effect, Operation
from caseward.errors import ActionNotAllowed, CommandRefused, InputInvalid
from caseward.failpoints import failpoint
from caseward.overrides import OVERRIDES
from caseward.process import Catalogue
from caseward.situation import Actor
from caseward.trace import continue_trace

TICK = timedelta(seconds=0.1)
SECOND = timedelta(seconds=1)
SMOOTH = 4  # a turn begins at most this part of a second's cases, so that they don't come all at one instant
PARALLEL = 4  # acceptances at once: one waits for a case that somebody else holds, the others go on


async def drive(database: Database, catalogue: Catalogue) -> bool:
    """One turn of all runs; True where there is more to do at once. Doing it twice, or in two places, does it once."""
    async with database.transaction() as session:
        busy, due = await _take_turn(session, catalogue)
    slots = asyncio.Semaphore(PARALLEL)
    async with asyncio.TaskGroup() as group:
        for item in due:
            group.create_task(_begin(database, catalogue, item, slots))
    if busy:
        await asyncio.sleep(TICK.total_seconds())
    return busy


async def _take_turn(session: AsyncSession, catalogue: Catalogue) -> tuple[bool, list[tuple[UUID, int]]]:
    """Read what became of the cases under way, and let the next ones begin."""
    found = await session.scalars(
        select(BulkRun).where(BulkRun.finished_at.is_(None)).order_by(BulkRun.created_at, BulkRun.id).with_for_update()
    )
    runs = list(found)
    if not runs:
        return False, []
    await _verify(session, runs)
    now = await database_now(session)
    load = await _load(session, now)
    busy = False
    for run in runs:
        counts = await _counts(session, run.id)
        failed = await _recent_failures(session, run.id) if any(counts[name] for name in FAILURES) else 0
        bounds = Bounds(canary=run.canary, rate=run.rate, stop_after=run.stop_after, look=run.look)
        room = _room(run, load, catalogue.limits)
        move = next_move(cast("RunState", run.state), bounds, counts, recent_failures=failed, room=room)
        if move.begin:
            begun = await _let_begin(session, run, move.begin)
            for partner in begun:
                load[run.id, partner] += 1
        if move.state == "stopped" and run.state != "stopped":
            await stop_run(session, run, now, by="system", because=move.because or "")
            counts = await _counts(session, run.id)
        elif move.state != run.state:
            _advance(run, move.state, now)
        under_way = any(counts[name] for name in UNDER_WAY) or bool(move.begin)
        if run.state in {"stopped", "completed"} and not under_way:
            run.finished_at = run.changed_at = now
        busy = busy or under_way or (run.state in {"canary", "ramping"})
    rows = await session.execute(
        select(BulkItem.bulk_id, BulkItem.number)
        .where(BulkItem.bulk_id.in_([run.id for run in runs]), BulkItem.state == "begun")
        .order_by(BulkItem.bulk_id, BulkItem.number)
    )
    return busy, [(row.bulk_id, row.number) for row in rows]


_SAID = {
    "looking": "The first ones are over. Somebody looks and says whether to go on.",
    "ramping": "The first ones are over and well. The rest follows.",
    "completed": "Every case had its turn.",
}


def _advance(run: BulkRun, state: str, now: datetime) -> None:
    run.state = state
    note(run, now, "system", _SAID[state])


async def _load(session: AsyncSession, now: datetime) -> Counter[tuple[UUID, str | None]]:
    """By run and partner: how many cases count against the rates."""
    lately = now - SECOND
    current = select(BulkRun.id).where(or_(BulkRun.finished_at.is_(None), BulkRun.finished_at > lately))
    counting = or_(BulkItem.state.in_(tuple(IN_FLIGHT)), BulkItem.answered_at > lately)
    rows = await session.execute(
        select(BulkItem.bulk_id, BulkItem.partner, func.count())
        .where(BulkItem.bulk_id.in_(current), counting)
        .group_by(BulkItem.bulk_id, BulkItem.partner)
    )
    return Counter({(bulk_id, partner): number for bulk_id, partner, number in rows})


def _room(run: BulkRun, load: Mapping[tuple[UUID, str | None], int], limits: Mapping[str, int]) -> int:
    """How many cases of this run may begin now, by its own rate and by what its partners take from all runs."""
    mine = sum(number for (bulk_id, _), number in load.items() if bulk_id == run.id)
    rooms = [run.rate - mine, math.ceil(run.rate / SMOOTH)]
    rooms += [
        limits[partner] - sum(number for (_, name), number in load.items() if name == partner)
        for partner in run.partners
        if partner in limits
    ]
    return max(0, min(rooms))


async def _counts(session: AsyncSession, bulk_id: UUID) -> Counter[str]:
    rows = await session.execute(
        select(BulkItem.state, func.count()).where(BulkItem.bulk_id == bulk_id).group_by(BulkItem.state)
    )
    return Counter({row[0]: row[1] for row in rows})


async def _recent_failures(session: AsyncSession, bulk_id: UUID) -> int:
    """How many of the latest outcomes are failures; cases that had moved tell nothing."""
    latest = (
        select(BulkItem.state)
        .where(
            BulkItem.bulk_id == bulk_id,
            BulkItem.answered_at.is_not(None),
            BulkItem.state.in_(("repaired", "proposed", *FAILURES)),
        )
        .order_by(BulkItem.answered_at.desc())
        .limit(RECENT)
        .subquery()
    )
    return await session.scalar(select(func.count()).where(latest.c.state.in_(tuple(FAILURES)))) or 0


async def _let_begin(session: AsyncSession, run: BulkRun, number: int) -> list[str | None]:
    """The next ones in order of age have their turn; answers their partners."""
    following = (
        select(BulkItem.number)
        .where(BulkItem.bulk_id == run.id, BulkItem.state == "frozen")
        .order_by(BulkItem.number)
        .limit(number)
    )
    now = func.clock_timestamp()
    begun = await session.scalars(
        update(BulkItem)
        # Said again here: of two turns at once the later one looks at the rows afresh, and not at what it chose from.
        .where(
            BulkItem.bulk_id == run.id,
            BulkItem.state == "frozen",
            BulkItem.number.in_(following.scalar_subquery()),
        )
        .values(state="begun", begun_at=now, changed_at=now)
        .returning(BulkItem.partner)
        .execution_options(synchronize_session=False)
    )
    return list(begun)


async def _begin(database: Database, catalogue: Catalogue, due: tuple[UUID, int], slots: asyncio.Semaphore) -> None:
    """Have one case's override accepted, as the one who ordered the run would alone; or write down why not."""
    async with slots:
        try:
            await _send(database, catalogue, due)
        except CommandRefused as refusal:
            await _refused(database, due, refusal)
        except DBAPIError:
            raise  # our own database: the item stays `begun`, and the next turn tries again
        except Exception as fault:  # noqa: BLE001 - one case that can't be handled must not hold the others up
            structlog.get_logger("bulk").exception("bulk_item_failed", bulk_id=str(due[0]), number=due[1])
            await _refused(database, due, InputInvalid(f"Our own code failed on it: {type(fault).__name__}."))


async def _send(database: Database, catalogue: Catalogue, due: tuple[UUID, int]) -> None:
    async with database.transaction() as session:
        item = await session.get(BulkItem, due, with_for_update=True)
        if item is None or item.state != "begun":
            return
        run = await session.get_one(BulkRun, item.bulk_id)
        override = OVERRIDES[run.override]
        where = {"step": item.step, "item": item.item} if override.per_step else {}
        accepted = await request_override(
            session,
            catalogue,
            case_id=item.case_id,
            override=run.override,
            input=override.input.model_validate({**run.input, **where, "reason": run.reason}),
            envelope=Envelope(
                actor=Actor(run.actor_id, frozenset(run.actor_roles), "bulk"),
                idempotency_key=f"bulk:{run.id}:{item.number}",
                traceparent=continue_trace(run.traceparent),
                bulk=OfBulk(run.id, item.effect_key, item.fingerprint),
            ),
        )
        case_id = item.case_id
        await session.execute(
            update(BulkItem)
            .where(BulkItem.bulk_id == run.id, BulkItem.number == item.number)
            .values(state="sent", operation_id=accepted.operation_id, changed_at=func.clock_timestamp())
            .execution_options(synchronize_session=False)
        )
        await failpoint("bulk.before_commit", case_id)
    await failpoint("bulk.sent", case_id)


async def _refused(database: Database, due: tuple[UUID, int], refusal: CommandRefused) -> None:
    moved = isinstance(refusal, ActionNotAllowed) and refusal.first_code == "case_moved"
    code = refusal.first_code if isinstance(refusal, ActionNotAllowed) else refusal.code
    outcome = {"code": code, "message": refusal.detail}
    outcome |= {name: refusal.members[name] for name in ("reasons", "errors") if refusal.members.get(name)}
    now = func.clock_timestamp()
    async with database.transaction() as session:
        await session.execute(
            update(BulkItem)
            .where(BulkItem.bulk_id == due[0], BulkItem.number == due[1], BulkItem.state == "begun")
            .values(state="moved" if moved else "refused", outcome=outcome, answered_at=now, changed_at=now)
            .execution_options(synchronize_session=False)
        )


# --- verified outcomes -----------------------------------------------------------------------------------------------

_story = aliased(Operation)
_driven = aliased(Effect)
_later = aliased(Effect)
_WORTH_A_LOOK = or_(
    Operation.finished_at.is_not(None),
    Operation.state == "proposed",
    Operation.blocked.is_not(None),
    Effect.state.in_(("settled", "blocked")),
    and_(Effect.state == "waiting", BulkItem.state == "sent"),
    exists().where(_driven.driven_by == Operation.id, _driven.state == "blocked"),
)
_STANDING = (
    select(
        BulkItem.bulk_id,
        BulkItem.number,
        BulkItem.state,
        BulkItem.answered_at,
        Operation.name.label("override"),
        Operation.state.label("operation_state"),
        or_(
            Operation.blocked.is_not(None),
            exists().where(_driven.driven_by == Operation.id, _driven.state == "blocked"),
        ).label("operation_blocked"),
        Effect.state.label("effect_state"),
        Effect.outcome.label("effect_outcome"),
        Effect.decision.label("effect_decision"),
        Effect.cause,
        Effect.error,
        _story.state.label("story_state"),
        _story.blocked.label("story_blocked"),
        exists().where(_later.driven_by == _story.id, _later.since >= Operation.accepted_at).label("story_went_on"),
    )
    .join(Operation, Operation.id == BulkItem.operation_id)
    .outerjoin(Effect, Effect.key == Operation.effect_key)
    .outerjoin(_story, _story.id == Operation.acts_on)
    .where(
        BulkItem.bulk_id.in_(bindparam("runs", expanding=True)),
        BulkItem.state.in_(("sent", "acknowledged")),
        _WORTH_A_LOOK,
    )
)
_BECAME = (
    update(BulkItem)
    .where(BulkItem.bulk_id == bindparam("of_run"), BulkItem.number == bindparam("of_number"))
    .values(
        state=bindparam("became"),
        outcome=bindparam("shown"),
        answered_at=func.coalesce(BulkItem.answered_at, func.clock_timestamp()),
        changed_at=func.clock_timestamp(),
    )
    .execution_options(synchronize_session=False)
)


async def _verify(session: AsyncSession, runs: Sequence[BulkRun]) -> None:
    """Write down what became of the cases under way, as operations and effects have it."""
    rows = (await session.execute(_STANDING, {"runs": [run.id for run in runs]})).all()
    became = [(row, state) for row in rows if (state := verified(_standing(row))) not in {None, row.state}]
    if became:
        connection = await session.connection()
        await connection.execute(
            _BECAME,
            [
                {"of_run": row.bulk_id, "of_number": row.number, "became": state, "shown": _shown(row)}
                for row, state in became
            ],
        )


def _standing(row: Any) -> Standing:
    return Standing(
        override=row.override,
        takes_over=OVERRIDES[row.override].takes_over,
        operation_state=row.operation_state,
        operation_blocked=row.operation_blocked,
        effect_state=row.effect_state,
        effect_decision=row.effect_decision,
        story_state=row.story_state,
        story_blocked=row.story_blocked is not None,
        story_went_on=row.story_went_on,
    )


def _shown(row: Any) -> dict[str, Any]:
    """The facts behind an outcome."""
    story: dict[str, Any] = row.story_blocked or {}
    shown: dict[str, Any] = {
        "operation": row.operation_state,
        "effect": row.effect_state,
        "outcome": row.effect_outcome,
        "decision": row.effect_decision,
        "cause": row.cause or story.get("cause"),
        "error": row.error or story.get("error"),
    }
    return {name: value for name, value in shown.items() if value is not None}
