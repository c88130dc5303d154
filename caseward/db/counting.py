"""Counting: what a transaction wrote is what happened. It is noted as the rows are written, and counted once they are
committed, so that no count knows of what was rolled back, and nobody has to think of it where something happens."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session

from caseward import metrics
from caseward.db.tables import Base, Case, Entry, Operation
from caseward.situation import FINISHED, NEVER_ACCEPTED

Count = Callable[[], None]

_NOTED = "counts"  # in the session's `info`


def note(session: Session, count: Count) -> None:
    """Have something counted when this transaction is committed."""
    session.info.setdefault(_NOTED, []).append(count)


def count(session: Session) -> None:
    """It is committed: count what was noted."""
    for each in session.info.pop(_NOTED, ()):
        each()


def note_attempt(session: Session, partner: str, outcome: str, *, took: timedelta) -> None:
    """Note that an attempt has an outcome; its row does not know the partner."""
    note(session, metrics.ATTEMPTS.labels(partner, outcome).inc)
    note(session, partial(metrics.ATTEMPT_DURATION.labels(partner).observe, took.total_seconds()))


def note_rows(session: Session, *_: object) -> None:
    """Note what the rows tell that are about to be written."""
    written = [row for row in (*session.new, *session.dirty) if isinstance(row, (Case, Operation, Entry))]
    if not written:
        return
    processes = {row.id: row.process for row in session if isinstance(row, Case)}
    for row in written:
        for each in _told_by(row, processes):
            note(session, each)


def _told_by(row: Base, processes: Mapping[Any, str]) -> Iterator[Count]:
    match row:
        case Entry():
            if row.case_id in processes:
                yield metrics.ENTRIES.labels(processes[row.case_id], row.type).inc
        case Case():
            state, since = _before(row, "state"), _before(row, "state_since")
            if state not in {None, row.state}:
                yield _seconds(metrics.STATE_DURATION.labels(row.process, state), since, row.state_since)
        case Operation():
            yield from _of_operation(row)
        case _:
            pass


def _of_operation(row: Operation) -> Iterator[Count]:
    before = _before(row, "state")
    if row.state in NEVER_ACCEPTED:
        return
    if before in {None, "proposed"}:
        yield metrics.OPERATIONS_ACCEPTED.labels(row.process, row.kind, row.name, row.actor_via).inc
    if row.started_at is not None and _before(row, "started_at") is None:
        start = metrics.OPERATION_START.labels(row.process, row.kind)
        yield _seconds(start, row.accepted_at, row.started_at)
    # What was completed had its outcome, also when it is undone later.
    had_one = before in FINISHED or (row.state != "completed" and row.to_state is not None)
    if row.state in FINISHED and not had_one:
        outcome = metrics.OPERATION_OUTCOME.labels(row.process, row.kind, row.name, row.state)
        yield _seconds(outcome, row.accepted_at, row.finished_at)


def _before(row: Base, name: str) -> Any:
    """What the row said before this transaction; None for a new one."""
    state: InstanceState[Any] = inspect(row)
    return None if state.key is None else state.committed_state.get(name, getattr(row, name))


def _seconds(histogram: Any, begun: datetime | None, ended: datetime | None) -> Count:
    def observe() -> None:
        if begun is not None and ended is not None:
            histogram.observe((ended - begun).total_seconds())

    return observe
