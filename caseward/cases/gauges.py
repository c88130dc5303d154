"""Gauges: what stands in Postgres at this moment, by indexed queries whose cost follows what is under way and waits,
not what was ever done."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from caseward import metrics
from caseward.cases.pauses import paused_processes
from caseward.cases.queries import snapshot
from caseward.metrics import Gauge, Readings
from caseward.outbox.store import TO_CALLBACKS, TO_MAIL, TO_TEMPORAL
from caseward.process import OPERATOR, Catalogue

STATEMENT_TIMEOUT = timedelta(seconds=2)  # of each query; a scrape is over within Prometheus' usual 10 s

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
_CALLBACKS = text("SELECT partner, count(*) FROM callbacks WHERE parked GROUP BY 1")
_PAUSES = text("SELECT split_part(key, ':', 1), split_part(key, ':', 2), state FROM pauses WHERE state <> 'open'")


async def read_gauges(session: AsyncSession, catalogue: Catalogue) -> Readings:
    """Every gauge but those of the scrape itself, of one instant."""
    await snapshot(session)
    await session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT // timedelta(milliseconds=1)}"))
    cases, oldest = await _cases(session, catalogue)
    unknown = (await session.execute(_UNKNOWN)).all()
    waiting = {row[0]: row for row in (await session.execute(_WAITING)).all()}
    parked = {row[0]: row[1] for row in (await session.execute(_PARKED)).all()}
    overdue = (await session.execute(_OVERDUE)).all()
    paused = await paused_processes(session, catalogue)
    destinations = sorted({TO_CALLBACKS, TO_MAIL, TO_TEMPORAL} | waiting.keys() | parked.keys())
    return {
        metrics.CASES: cases.items(),
        metrics.CASES_OLDEST: oldest.items(),
        metrics.CASES_OVERDUE: [((row[0], row[1]), row[2]) for row in overdue if row[0] not in paused],
        metrics.PROPOSALS: _rows(await session.execute(_PROPOSALS)),
        metrics.UNKNOWN: [(tuple(row[:3]), row[3]) for row in unknown],
        metrics.UNKNOWN_OLDEST: [(tuple(row[:3]), float(row[4])) for row in unknown],
        metrics.OUTBOX_WAITING: [((name,), waiting[name][1] if name in waiting else 0) for name in destinations],
        metrics.OUTBOX_OLDEST: [((name,), float(waiting[name][2]) if name in waiting else 0) for name in destinations],
        metrics.OUTBOX_PARKED: [((name,), parked.get(name, 0)) for name in destinations],
        metrics.CALLBACKS_PARKED: _rows(await session.execute(_CALLBACKS)),
        metrics.PAUSES: [(tuple(row), 1) for row in await session.execute(_PAUSES)],
    }


def process_info(catalogue: Catalogue) -> Mapping[Gauge, Any]:
    """Which team owns which process: what joins owners to whatever is counted by process."""
    return {metrics.PROCESS_INFO: [((process.name, process.owner), 1) for process in catalogue.values()]}


async def _cases(
    session: AsyncSession, catalogue: Catalogue
) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    paused = await paused_processes(session, catalogue)
    counts: dict[tuple[str, ...], float] = {}
    oldest: dict[tuple[str, ...], float] = {}
    for process, state, condition, owner, own_pause, count, age in await session.execute(_CASES):
        labels = (process, state, condition, owner)
        if process in paused and not own_pause:  # which touches none of their rows
            labels = (process, state, "paused", OPERATOR)
        counts[labels] = counts.get(labels, 0) + count
        oldest[labels] = max(oldest.get(labels, 0.0), float(age))
    return counts, oldest


def _rows(found: Any) -> list[tuple[tuple[str, ...], float]]:
    return [((str(label),), float(value)) for label, value in found]
