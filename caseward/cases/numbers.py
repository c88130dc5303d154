"""Numbers: how the business ran over some days, counted from operations, timeline, cases and attempts themselves.

Whatever happened before the days costs nothing: ids are UUIDv7, so operations asked for since an instant are one range
of their primary key; cases that changed since then one range of an index; and attempts of the last hour one of another.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.pauses import paused_processes
from caseward.cases.pausing import standing_pauses
from caseward.cases.queries import snapshot
from caseward.db.session import database_now
from caseward.documents.numbers import (
    Numbers,
    OperationNumbers,
    PartnerNumbers,
    ProcessNumbers,
    Spread,
    StandingCases,
    StateNumbers,
)
from caseward.policy import Action, action_title
from caseward.process import OPERATOR, Catalogue, Process

MOST_DAYS = 90
RECENTLY = timedelta(hours=1)  # how a partner is: what it was yesterday says little
MOST_CASES = 3000  # of a process, whose time in states is looked at: with more of them quantiles hardly move

# Whether a transition was taken before has to be looked up for cases only that are older than the days.
_OPERATIONS = text(
    """
    WITH asked_for AS (
        SELECT process, kind, name, case_id, accepted_at, actor_via, state,
            state NOT IN ('proposed', 'declined', 'expired') AS accepted,
            row_number() OVER (
                PARTITION BY case_id, kind, name, state IN ('proposed', 'declined', 'expired')
                ORDER BY accepted_at) AS times,
            CASE WHEN effect_key IS NOT NULL
                 THEN (SELECT recovery_owner FROM effects WHERE key = effect_key) END AS owner,
            extract(epoch FROM started_at - accepted_at)::float AS started,
            -- What was undone after its outcome has lost the instant of it.
            CASE WHEN state = 'completed' OR to_state IS NULL
                 THEN extract(epoch FROM finished_at - accepted_at)::float END AS finished
        FROM operations WHERE id >= :first AND process = ANY(:processes)
    )
    SELECT process, kind, name, owner,
        count(*) FILTER (WHERE accepted) AS accepted,
        count(*) FILTER (WHERE accepted AND kind = 'transition' AND (times > 1 OR (case_id < :first AND EXISTS (
            SELECT FROM operations AS before
            WHERE before.case_id = asked_for.case_id AND before.accepted_at < asked_for.accepted_at
              AND before.kind = 'transition' AND before.name = asked_for.name
              AND before.state NOT IN ('proposed', 'declined', 'expired'))))) AS repeated,
        count(*) FILTER (WHERE accepted AND actor_via = 'system') AS by_system,
        count(*) FILTER (WHERE state = 'completed') AS completed,
        count(*) FILTER (WHERE state = 'undone') AS undone,
        count(*) FILTER (WHERE state = 'superseded') AS superseded,
        count(*) FILTER (WHERE state IN ('accepted', 'running', 'undoing')) AS open,
        count(*) FILTER (WHERE state = 'proposed') AS proposed,
        count(*) FILTER (WHERE state IN ('declined', 'expired')) AS declined,
        count(started) FILTER (WHERE accepted) AS starts,
        percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY started) FILTER (WHERE accepted) AS start,
        count(finished) FILTER (WHERE accepted) AS outcomes,
        percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY finished) FILTER (WHERE accepted) AS outcome
    FROM asked_for GROUP BY 1, 2, 3, 4
    """
)
# When a case came into a state: by an operation's acceptance (the pending state) and by its completion. Of one that was
# voided after its completion the timeline knows when that was. The inner LIMIT keeps the planner at the index: it would
# rather read every operation there ever was.
_VISITS = text(
    """
    WITH looked_at AS (
        SELECT id FROM cases WHERE changed_at >= :since AND process = :process ORDER BY changed_at DESC LIMIT :most
    ), theirs AS (
        SELECT o.* FROM looked_at CROSS JOIN LATERAL (
            SELECT id, case_id, accepted_at, finished_at, state, case_state, to_state FROM operations
            WHERE case_id = looked_at.id AND state NOT IN ('proposed', 'declined', 'expired')
            ORDER BY accepted_at DESC LIMIT 1000) AS o
    ), moves AS (
        SELECT case_id, accepted_at AS at, 1 AS turn, case_state AS state FROM theirs
        UNION ALL
        SELECT case_id, CASE WHEN state = 'completed' THEN finished_at ELSE coalesce((
                SELECT min(t.at) FROM timeline_entries AS t WHERE t.case_id = theirs.case_id
                AND t.operation_id = theirs.id AND t.type = 'operation.completed'), accepted_at) END, 2, to_state
        FROM theirs WHERE to_state IS NOT NULL
    ), arrivals AS (
        SELECT *, lag(state) OVER (PARTITION BY case_id ORDER BY at, turn) AS before FROM moves
    ), visits AS (
        SELECT state, at, lead(at) OVER (PARTITION BY case_id ORDER BY at, turn) AS left_at
        FROM arrivals WHERE before IS DISTINCT FROM state
    )
    SELECT state, count(*) AS many,
        percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (
            ORDER BY extract(epoch FROM left_at - at)::float) AS took
    FROM visits WHERE left_at >= :since AND left_at > at GROUP BY state
    """
)
_LOOKED_AT = text(
    """
    SELECT count(*) FROM (
        SELECT FROM cases WHERE changed_at >= :since AND process = :process
        ORDER BY changed_at DESC LIMIT :most) AS found
    """
)
# Those that owe nothing are by far the most, and have an index of their own.
_NOW = text(
    """
    SELECT process, state, condition, recovery_owner, paused IS NOT NULL AS own_pause, count(*) AS cases,
        min(condition_since) AS condition_since, min(state_since) AS state_since,
        avg(extract(epoch FROM clock_timestamp() - state_since))::float AS mean
    FROM cases WHERE process = ANY(:processes)
      AND condition IN ('paused', 'blocked', 'undoing', 'retrying', 'waiting', 'running', 'queued')
    GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT process, state, 'done', NULL, false, count(*), min(condition_since), min(state_since),
        avg(extract(epoch FROM clock_timestamp() - state_since))::float
    FROM cases WHERE process = ANY(:processes) AND condition = 'done' AND NOT final GROUP BY 1, 2
    """
)
_ATTEMPTS = text(
    """
    SELECT e.partner, coalesce(a.outcome, 'running') AS outcome, count(*) AS many, max(a.ended_at) AS last_at
    FROM attempts AS a JOIN effects AS e ON e.key = a.effect_key WHERE a.started_at >= :recently GROUP BY 1, 2
    """
)
_ANSWERED = text(
    """
    SELECT e.partner, count(took) AS many,
        percentile_cont(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY took) AS took
    FROM attempts AS a JOIN effects AS e ON e.key = a.effect_key
    CROSS JOIN LATERAL (SELECT extract(epoch FROM a.ended_at - a.started_at)::float AS took) AS told
    WHERE a.started_at >= :recently AND a.outcome <> 'unknown' GROUP BY 1
    """
)
_OWED = text(
    """
    SELECT partner, state, count(*) AS many FROM effects WHERE state = 'blocked' GROUP BY 1, 2
    UNION ALL
    SELECT partner, state, count(*) FROM effects WHERE state = 'waiting' GROUP BY 1, 2
    """
)

Rows = Sequence[Any]


async def get_numbers(
    session: AsyncSession, catalogue: Catalogue, *, days: int, process: str | None = None, visits: bool = True
) -> Numbers:
    """The numbers of every process, or of one that is declared, over this many days.

    Without `visits` nobody looks how long cases were in a state that they left, which takes longest.
    """
    await snapshot(session)
    chosen = [catalogue[process]] if process is not None else list(catalogue.values())
    now = await database_now(session)
    since = now - timedelta(days=days)
    theirs = {"processes": [each.name for each in chosen]}
    operations = await _by_process(session, _OPERATIONS, theirs | {"first": _first_id(since)})
    standing = await _by_process(session, _NOW, theirs)
    paused = await paused_processes(session, theirs["processes"])
    counted: list[ProcessNumbers] = []
    for each in chosen:
        wanted = {"since": since, "process": each.name}
        left = (await session.execute(_VISITS, wanted | {"most": MOST_CASES})).all() if visits else ()
        looked_at = await session.scalar(_LOOKED_AT, wanted | {"most": MOST_CASES + 1}) if visits else 0
        alike = _standing(each, standing[each.name], paused.get(each.name))
        counted.append(
            ProcessNumbers(
                process=each.name,
                title=each.title,
                owner=each.owner,
                open=sum(row.cases for row in alike),
                stuck=sum(row.cases for row in alike if row.condition == "blocked"),
                states=_states(each, standing[each.name], alike, left),
                standing=[row for row in alike if row.condition != "done"],
                operations=_operations(each, operations[each.name]),
                sampled=(looked_at or 0) > MOST_CASES,
            )
        )
    return Numbers(
        days=days,
        since=since,
        at=now,
        recent_seconds=RECENTLY.total_seconds(),
        processes=counted,
        partners=await _partners(session, chosen, now - RECENTLY),
    )


def _first_id(at: datetime) -> UUID:
    """The smallest UUIDv7 that could be made at this instant."""
    return UUID(int=int(at.timestamp() * 1000) << 80)


async def _by_process(session: AsyncSession, query: TextClause, wanted: Mapping[str, Any]) -> Mapping[str, Rows]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in await session.execute(query, wanted):
        found[row.process].append(row)
    return found


def _spread(count: int, quantiles: Sequence[float] | None) -> Spread:
    if not count or not quantiles:
        return Spread(count=0)
    p50, p90, p99, longest = quantiles
    return Spread(count=count, p50=p50, p90=p90, p99=p99, longest=longest)


def _standing(process: Process, rows: Rows, paused_since: datetime | None) -> list[StandingCases]:
    """As lists of cases show them: a process's pause holds every case that has none of its own."""
    alike: dict[tuple[str, str, str | None], tuple[int, datetime]] = {}
    for row in rows:
        held = paused_since is not None and not row.own_pause
        key = (row.state, "paused", OPERATOR) if held else (row.state, row.condition, row.recovery_owner)
        count, since = alike.get(key, (0, None))
        began = paused_since if held and paused_since is not None else row.condition_since
        alike[key] = (count + row.cases, min(began, since or began))
    documents = [
        StandingCases(
            state=state,
            title=_title(process, state),
            condition=condition,
            owner=owner,
            cases=count,
            oldest_since=since,
            href="/v1/cases?"
            + urlencode(
                {
                    "process": process.name,
                    "state": state,
                    "condition": condition,
                    **({"recovery_owner": owner} if owner else {}),
                }
            ),
        )
        for (state, condition, owner), (count, since) in alike.items()
    ]
    return sorted(documents, key=lambda row: (row.condition != "blocked", row.oldest_since))


def _states(process: Process, rows: Rows, alike: Iterable[StandingCases], visits: Rows) -> list[StateNumbers]:
    """Every declared state, and those that open cases are in although nobody declares them any more."""
    there: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        there[row.state].append(row)
    stuck: dict[str, int] = defaultdict(int)
    for each in alike:
        stuck[each.state] += each.cases if each.condition == "blocked" else 0
    left = {row.state: _spread(row.many, row.took) for row in visits}
    declared = [state.name for state in process.states]
    documents: list[StateNumbers] = []
    for name in [*declared, *sorted({*there, *left} - {*declared})]:
        cases = sum(row.cases for row in there[name])
        documents.append(
            StateNumbers(
                state=name,
                title=_title(process, name),
                final=name in declared and process.state(name).final,
                cases=cases,
                stuck=stuck[name],
                mean_seconds=sum(row.cases * row.mean for row in there[name]) / cases if cases else None,
                oldest_since=min((row.state_since for row in there[name]), default=None),
                left=left.get(name, Spread(count=0)),
            )
        )
    return documents


def _operations(process: Process, rows: Rows) -> list[OperationNumbers]:
    order = [transition.name for transition in process.transitions]
    documents = [
        OperationNumbers(
            kind=row.kind,
            name=row.name,
            title=action_title(process, Action(row.kind, row.name)),
            owner=row.owner or process.owner,
            accepted=row.accepted,
            repeated=row.repeated,
            by_system=row.by_system,
            completed=row.completed,
            undone=row.undone,
            superseded=row.superseded,
            open=row.open,
            proposed=row.proposed,
            declined=row.declined,
            started=_spread(row.starts, row.start),
            outcome=_spread(row.outcomes, row.outcome),
        )
        for row in rows
    ]
    kinds = ("transition", "override", "claim")
    return sorted(
        documents,
        key=lambda row: (
            kinds.index(row.kind),
            order.index(row.name) if row.name in order else len(order),
            row.name,
            row.owner,
        ),
    )


async def _partners(session: AsyncSession, chosen: Iterable[Process], recently: datetime) -> list[PartnerNumbers]:
    users: dict[str, list[str]] = defaultdict(list)
    for process in chosen:
        for partner in sorted({step.partner for step in process.steps.values()}):
            users[partner].append(process.name)
    attempts: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in await session.execute(_ATTEMPTS, {"recently": recently}):
        attempts[row.partner][row.outcome] = row
    answered = {row.partner: row for row in await session.execute(_ANSWERED, {"recently": recently})}
    owed = {(row.partner, row.state): row.many for row in await session.execute(_OWED)}
    pauses = {pause.name: pause for pause in await standing_pauses(session) if pause.scope == "partner"}
    return [
        PartnerNumbers(
            partner=name,
            processes=users[name],
            attempts={outcome: row.many for outcome, row in sorted(attempts[name].items())},
            answered=_spread(answered[name].many, answered[name].took) if name in answered else Spread(count=0),
            last_succeeded_at=_last(attempts[name], "succeeded"),
            last_failed_at=_last(attempts[name], "failed", "unknown"),
            blocked=owed.get((name, "blocked"), 0),
            waiting=owed.get((name, "waiting"), 0),
            pause=pauses.get(name),
        )
        for name in sorted(users)
    ]


def _last(attempts: Mapping[str, Any], *outcomes: str) -> datetime | None:
    instants = [attempts[each].last_at for each in outcomes if each in attempts]
    return max((at for at in instants if at is not None), default=None)


def _title(process: Process, state: str) -> str:
    declared = {each.name: each.title for each in process.states}
    return declared.get(state, state.replace("_", " ").capitalize())
