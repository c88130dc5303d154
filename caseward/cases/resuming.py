"""What pauses need to be looked after: probes of a breaker, and the waking of cases at a limited rate.

One chore, done by one worker at a time. Each case is woken in a transaction of its own that looks again whether it has
to be, so that doing it twice does it once.
"""

import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import breaker
from caseward.cases.locked import LockedCase, lock_case
from caseward.cases.looking_back import whole_situation
from caseward.cases.pauses import Hold, give_back, hold_of, is_frozen, let_go, tell
from caseward.db.session import Database, database_now
from caseward.db.tables import Effect, Pause
from caseward.process import Catalogue
from caseward.situation import SYSTEM

EVERY = timedelta(seconds=0.25)
AT_ONCE = timedelta(seconds=0.5)  # of a rate's worth may be made up for at once, where a tick came late

# Oldest first. A cases's deadlines are its own: they come last, after all that waits.
_HELD_UP = (
    select(Effect.case_id)
    .where(Effect.state == "paused", Effect.paused_by == bindparam("key"))
    .group_by(Effect.case_id)
    .order_by(func.min(Effect.since))
    .limit(bindparam("most"))
)
_OWED = {
    "process": text(
        """
        SELECT id FROM cases
        WHERE process = :name AND NOT final
          AND (thawed IS NULL OR thawed->>:key IS NULL OR (thawed->>:key)::timestamptz < :since)
          AND (deadline_at IS NOT NULL OR EXISTS (
                SELECT 1 FROM effects
                WHERE driven_by = cases.operation_id AND state <> 'settled' AND answer_by IS NOT NULL))
        ORDER BY id LIMIT :most
        """
    ),
    "partner": text(
        """
        SELECT DISTINCT cases.id FROM effects JOIN cases ON cases.id = effects.case_id
        WHERE effects.state = 'waiting' AND effects.partner = :name
          AND (thawed IS NULL OR thawed->>:key IS NULL OR (thawed->>:key)::timestamptz < :since)
        ORDER BY cases.id LIMIT :most
        """
    ),
}


class Resuming:
    """Looks after pauses; remembers between its turns how many cases each rate still allows."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database = database
        self._catalogue = catalogue
        self._allowed: dict[str, tuple[float, float]] = {}
        """By pause: cases that may be woken, and when that was reckoned."""

    async def __call__(self) -> bool:
        """One turn: a pause that is open costs nothing."""
        async with self._database.transaction() as session:
            now = await database_now(session)
            found = await session.scalars(select(Pause).where(Pause.state != "open").order_by(Pause.key))
            pauses = list(found)
        for pause in pauses:
            if pause.state == "resuming":
                await self._resume(pause, now)
            elif pause.actor_id == SYSTEM.id and pause.probe_at is not None and pause.probe_at <= now:
                await self._probe(pause.key)
            elif pause.state == "probing":
                await self._wake_probes(pause)
        self._allowed = {key: kept for key, kept in self._allowed.items() if key in {p.key for p in pauses}}
        return False

    async def _resume(self, pause: Pause, now: datetime) -> None:
        most = self._budget(pause.key, breaker.allowed_rate(pause, now))
        if most == 0:
            return
        cases = await self._due(pause, most)
        for case_id in cases:
            await wake(self._database, self._catalogue, key=pause.key, case_id=case_id)
        self._spend(pause.key, len(cases))
        if len(cases) < most:
            await self._open(pause.key)

    def _budget(self, key: str, rate: int) -> int:
        """How many may be woken now: what the rate gave since the last time, and a little that was left."""
        at, (left, since) = time.monotonic(), self._allowed.get(key, (1.0, time.monotonic()))
        left = min(left + rate * (at - since), max(1.0, rate * AT_ONCE.total_seconds()))
        self._allowed[key] = left, at
        return int(left)

    def _spend(self, key: str, woken: int) -> None:
        left, at = self._allowed[key]
        self._allowed[key] = left - woken, at

    async def _due(self, pause: Pause, most: int) -> list[UUID]:
        async with self._database.transaction() as session:
            return await _cases(session, pause, most)

    async def _open(self, key: str) -> None:
        """Nobody waits any more. Whoever read it while it was paused has committed once we hold the row."""
        async with self._database.transaction() as session:
            pause = await session.get_one(Pause, key, with_for_update=True, populate_existing=True)
            if pause.state != "resuming" or await _cases(session, pause, 1):
                return
            pause.frozen_since, pause.trips = None, 0 if not pause.failing else pause.trips
            now = max(await database_now(session), pause.since)
            breaker.change(session, pause, "open", actor=SYSTEM, reason="Every case that waited goes on.", now=now)

    async def _probe(self, key: str) -> None:
        """Let a few cases try; choose others where those before did not tell in time."""
        async with self._database.transaction() as session:
            pause = await session.get_one(Pause, key, with_for_update=True, populate_existing=True)
            now = await database_now(session)
            if pause.state not in {"paused", "probing"} or pause.actor_id != SYSTEM.id:
                return
            if pause.probe_at is None or pause.probe_at > now:
                return
            if any(probe["answered"] for probe in pause.probes):
                breaker.begin_to_resume(session, pause, "It answered some of those that were let try.", now)
                return
            query = select(Effect.key).where(Effect.state == "paused", Effect.paused_by == key)
            chosen = list(await session.scalars(query.order_by(Effect.since).limit(breaker.PROBES)))
            if not chosen:
                return  # the next case that needs the partner will be the first to try
            pause.probes = [{"key": effect_key, "answered": False} for effect_key in chosen]
            reason = f"{len(chosen)} of the cases that wait may try."
            breaker.change(session, pause, "probing", actor=SYSTEM, reason=reason, now=now, effects=chosen)
            pause.probe_at = now + breaker.PROBING_ENDS
        await self._wake_probes(pause)

    async def _wake_probes(self, pause: Pause) -> None:
        keys = [probe["key"] for probe in pause.probes if not probe["answered"]]
        async with self._database.transaction() as session:
            query = select(Effect.case_id).where(Effect.key.in_(keys), Effect.state == "paused").distinct()
            cases = list(await session.scalars(query))
        for case_id in cases:
            await wake(self._database, self._catalogue, key=pause.key, case_id=case_id)


async def _cases(session: AsyncSession, pause: Pause, most: int) -> list[UUID]:
    """The cases that a resume has to go through, those that wait before those that are only owed time."""
    found = list(await session.scalars(_HELD_UP, {"key": pause.key, "most": most}))
    if pause.frozen_since is not None and len(found) < most:
        scope, _, name = pause.key.partition(":")
        wanted: dict[str, Any] = {"key": pause.key, "name": name, "since": pause.since, "most": most}
        owed = await session.scalars(_OWED[scope], wanted)
        found += [case_id for case_id in owed if case_id not in found][: most - len(found)]
    return found


async def wake(database: Database, catalogue: Catalogue, *, key: str, case_id: UUID) -> None:
    """Let what waits in this case for this pause go on, and give back the time for which its deadlines stood still."""
    async with database.transaction() as session:
        work = await lock_case(session, catalogue, case_id)
        pause = await session.get_one(Pause, key, with_for_update={"read": True}, populate_existing=True)
        hold = hold_of(pause)
        session.expunge(pause)  # nobody may write what is only shared
        waiting = await _waiting_effects(work, key)
        held_since = min((effect.since for effect in waiting), default=None)
        woken = [effect for effect in waiting if not hold.holds(effect.key)]
        for effect in woken:
            let_go(work, effect, actor=hold.actor, reason=hold.reason)
        if hold.state == "resuming" and is_frozen(hold, work.case):
            await _thaw(work, hold, held_since)
        elif not woken:
            return
        work.touch()
        tell(work, woken)


async def _waiting_effects(work: LockedCase, key: str) -> list[Effect]:
    found = await work.session.scalars(
        select(Effect)
        .where(Effect.case_id == work.case.id, Effect.state == "paused", Effect.paused_by == key)
        .order_by(Effect.reserved_at)
    )
    for effect in (rows := list(found)):
        work.effects.setdefault(effect.key, effect)
    return rows


async def _thaw(work: LockedCase, hold: Hold, held_since: datetime | None) -> None:
    """From here on the case's deadlines pass again, later by as much as this pause took."""
    began = hold.frozen_since
    if began is None:
        return
    before = (work.case.thawed or {}).get(hold.key)
    if before is not None:  # paused anew before the resume was through: this case had its time back until then
        began = max(began, datetime.fromisoformat(before))
    looked = await whole_situation(work)
    others = [pause for pause in looked.pauses if pause.key != hold.key]
    scope, _, name = hold.key.partition(":")
    give_back(
        *(work, hold.key, began, others),
        partner=name if scope == "partner" else None,
        state_from=held_since,
    )
    work.case.thawed = {**(work.case.thawed or {}), hold.key: work.now.isoformat()}
