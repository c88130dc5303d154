"""Gauges: what stands in Postgres at this moment, by indexed queries whose cost follows what is under way and waits,
not what was ever done."""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from psycopg.errors import QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from caseward import metrics
from caseward.cases.pauses import paused_processes
from caseward.cases.queries import snapshot
from caseward.metrics import Gauge, Readings
from caseward.outbox.store import TO_CALLBACKS, TO_MAIL, TO_TEMPORAL
from caseward.process import OPERATOR, Catalogue

STATEMENT_TIMEOUT = timedelta(seconds=2)  # of each query
QUERIES_WITHIN = timedelta(seconds=4)  # all of them; what is left by then is not asked for
DESTINATIONS = frozenset({TO_CALLBACKS, TO_MAIL, TO_TEMPORAL})

# `done` stands for most of all cases, and nobody owes them anything.
_CASES = text(
    """
    SELECT process, state, condition, coalesce(recovery_owner, ''), paused IS NOT NULL, count(*),
           extract(epoch FROM clock_timestamp() - min(condition_since))
    FROM cases WHERE condition IN ('paused', 'blocked', 'undoing', 'retrying', 'waiting', 'running', 'queued')
    GROUP BY 1, 2, 3, 4, 5
    """
)
_OVERDUE = text(
    """
    SELECT process, state, count(*) FROM cases
    WHERE deadline_at < clock_timestamp() AND operation_id IS NULL AND paused IS NULL GROUP BY 1, 2
    """
)
_PROPOSALS = text("SELECT process, sum(proposals) FROM cases WHERE proposals > 0 GROUP BY 1")
_UNKNOWN = text(
    """
    SELECT cases.process, effects.partner, effects.recovery_owner, count(*),
           extract(epoch FROM clock_timestamp() - min(effects.since))
    FROM cases JOIN effects ON effects.driven_by = cases.operation_id
    WHERE cases.operation_id IS NOT NULL AND effects.outcome = 'unknown' AND effects.state <> 'settled'
    GROUP BY 1, 2, 3
    """
)
_WAITING = text(
    """
    SELECT destination, count(*), extract(epoch FROM clock_timestamp() - min(created_at))
    FROM outbox_messages WHERE dispatched_at IS NULL AND NOT parked GROUP BY 1
    """
)
_PARKED = text("SELECT destination, count(*) FROM outbox_messages WHERE parked GROUP BY 1")
_CALLBACKS = text("SELECT partner, count(*) FROM callbacks WHERE parked AND dismissed_at IS NULL GROUP BY 1")
_PAUSES = text("SELECT split_part(key, ':', 1), split_part(key, ':', 2), state FROM pauses WHERE state <> 'open'")


async def read_gauges(session: AsyncSession, catalogue: Catalogue) -> Readings:
    """Every gauge but those of the scrape itself, of one instant; those that took too long are named, and left out."""
    await snapshot(session)
    found: dict[Gauge, Any] = {}
    unread: list[Gauge] = []
    end = time.monotonic() + QUERIES_WITHIN.total_seconds()
    for gauges, read in _READ:
        left = min(STATEMENT_TIMEOUT, timedelta(seconds=end - time.monotonic())) // timedelta(milliseconds=1)
        try:
            if left > 0:
                async with session.begin_nested():  # what is cancelled ends no more than itself
                    await session.execute(text(f"SET LOCAL statement_timeout = {left}"))
                    found.update(zip(gauges, await read(session, catalogue), strict=True))
        except OperationalError as fault:
            if not isinstance(fault.orig, QueryCanceled):
                raise
        unread += [gauge for gauge in gauges if gauge not in found]
    return {**found, metrics.GAUGES_UNREAD: [((gauge.name,), 1) for gauge in unread]}


def process_info(catalogue: Catalogue) -> Mapping[Gauge, Any]:
    """Which team owns which process: what joins owners to whatever is counted by process."""
    return {metrics.PROCESS_INFO: [((process.name, process.owner), 1) for process in catalogue.values()]}


async def _outbox(session: AsyncSession, _: Catalogue) -> list[Any]:
    waiting = {row[0]: row for row in await session.execute(_WAITING)}
    destinations = sorted(DESTINATIONS | waiting.keys())
    return [
        [((name,), waiting[name][1] if name in waiting else 0) for name in destinations],
        [((name,), float(waiting[name][2]) if name in waiting else 0) for name in destinations],
    ]


async def _parked(session: AsyncSession, _: Catalogue) -> list[Any]:
    parked = {row[0]: row[1] for row in await session.execute(_PARKED)}
    return [[((name,), parked.get(name, 0)) for name in sorted(DESTINATIONS | parked.keys())]]


async def _callbacks(session: AsyncSession, _: Catalogue) -> list[Any]:
    return [_rows(await session.execute(_CALLBACKS))]


async def _pauses(session: AsyncSession, _: Catalogue) -> list[Any]:
    return [[(tuple(row), 1) for row in await session.execute(_PAUSES)]]


async def _proposals(session: AsyncSession, _: Catalogue) -> list[Any]:
    return [_rows(await session.execute(_PROPOSALS))]


async def _unknown(session: AsyncSession, _: Catalogue) -> list[Any]:
    unknown = (await session.execute(_UNKNOWN)).all()
    return [[(tuple(row[:3]), row[3]) for row in unknown], [(tuple(row[:3]), float(row[4])) for row in unknown]]


async def _overdue(session: AsyncSession, catalogue: Catalogue) -> list[Any]:
    paused = await paused_processes(session, catalogue)
    return [[((row[0], row[1]), row[2]) for row in await session.execute(_OVERDUE) if row[0] not in paused]]


async def _cases(session: AsyncSession, catalogue: Catalogue) -> list[Any]:
    paused = await paused_processes(session, catalogue)
    counts: dict[tuple[str, ...], float] = {}
    oldest: dict[tuple[str, ...], float] = {}
    for process, state, condition, owner, own_pause, count, age in await session.execute(_CASES):
        labels = (process, state, condition, owner)
        if process in paused and not own_pause:  # which touches none of their rows
            labels = (process, state, "paused", OPERATOR)
        counts[labels] = counts.get(labels, 0) + count
        oldest[labels] = max(oldest.get(labels, 0.0), float(age))
    return [counts.items(), oldest.items()]


def _rows(found: Any) -> list[tuple[tuple[str, ...], float]]:
    return [((str(label),), float(value)) for label, value in found]


# The gauges that one query gives: one that takes too long costs the others nothing. Small tables before large ones.
_READ: tuple[tuple[tuple[Gauge, ...], Callable[[AsyncSession, Catalogue], Awaitable[list[Any]]]], ...] = (
    ((metrics.OUTBOX_WAITING, metrics.OUTBOX_OLDEST), _outbox),
    ((metrics.OUTBOX_PARKED,), _parked),
    ((metrics.CALLBACKS_PARKED,), _callbacks),
    ((metrics.PAUSES,), _pauses),
    ((metrics.PROPOSALS,), _proposals),
    ((metrics.UNKNOWN, metrics.UNKNOWN_OLDEST), _unknown),
    ((metrics.CASES_OVERDUE,), _overdue),
    ((metrics.CASES, metrics.CASES_OLDEST), _cases),
)
