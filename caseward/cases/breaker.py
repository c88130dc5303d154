"""The circuit breaker: a partner that keeps failing trips its own pause, in the one row that all workers share.

It trips on several effects in a row, not on several attempts at one, and never lifts what a person paused. While all
goes well nothing is written here: an answer only counts where the reservation saw that the partner was failing.
"""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.pauses import Hold, hold_of
from caseward.db.tables import Pause, PauseChange
from caseward.situation import SYSTEM, Actor, pause_words

THRESHOLD = 8  # effects; fewer fail together when one worker's network hiccups
SPAN = timedelta(seconds=2)  # from the first failure to the one that trips: a restart behind a proxy is shorter
AFTER_RESUME = 3  # effects; a partner that was away just now gets less credit
PROBE_AFTER = timedelta(seconds=15)
PROBE_AT_MOST = timedelta(minutes=5)
PROBES = 3  # cases that may try
PROBING_ENDS = timedelta(seconds=60)  # longer than a gateway's deadline: a probe may belong to a case that is gone
FIRST_RATE = 5  # cases a second that a resume of the breaker's own begins with; it doubles
DOUBLES_EVERY = timedelta(seconds=10)
MOST = 8  # times the first rate


async def hear(session: AsyncSession, key: str, effect_key: str, *, now: datetime, code: str | None) -> Hold | None:
    """Take in that an effect was answered (`code` None) or failed. The last lock that a transaction takes but one."""
    pause = await session.get(Pause, key, with_for_update=True, populate_existing=True)
    if pause is None:
        return None
    tripped_itself = pause.actor_id == SYSTEM.id
    if pause.state == "probing":
        _hear_probe(session, pause, effect_key, now=now, code=code)
    elif pause.state == "paused" and tripped_itself and code is None:
        pause.probe_at = now  # who only asked, or was on the way when it tripped, was answered
    elif pause.state in {"open", "resuming"}:
        _count(session, pause, effect_key, now=now, code=code)
    return hold_of(pause)


def _count(session: AsyncSession, pause: Pause, effect_key: str, *, now: datetime, code: str | None) -> None:
    if code is None:
        if pause.failing:
            pause.failing = []
        return
    limit = AFTER_RESUME if pause.state == "resuming" and pause.trips else THRESHOLD
    known = [failed["key"] for failed in pause.failing]
    if effect_key not in known and len(known) < limit:
        pause.failing = [*pause.failing, {"key": effect_key, "at": now.isoformat()}]
    first = datetime.fromisoformat(str(pause.failing[0]["at"]))
    long_enough = limit == AFTER_RESUME or now - first >= SPAN
    if len(pause.failing) >= limit and long_enough:
        _trip(session, pause, f"{len(pause.failing)} effects failed in a row, the last with {code}.", now)


def _hear_probe(session: AsyncSession, pause: Pause, effect_key: str, *, now: datetime, code: str | None) -> None:
    if effect_key not in [probe["key"] for probe in pause.probes]:
        return
    if code is not None:
        _trip(session, pause, f"It let a few cases try, and it still failed, with {code}.", now)
        return
    pause.probes = [{**probe, "answered": probe["answered"] or probe["key"] == effect_key} for probe in pause.probes]
    if all(probe["answered"] for probe in pause.probes):
        begin_to_resume(session, pause, "It answered those that were let try.", now)


def _trip(session: AsyncSession, pause: Pause, reason: str, now: datetime) -> None:
    probe_at = now + min(PROBE_AFTER * 2**pause.trips, PROBE_AT_MOST)
    pause.probe_at, pause.trips = probe_at, min(pause.trips + 1, 10)
    pause.deadlines = "running"
    reason = f"{pause_words(pause.key).capitalize()} does not answer: {reason}"
    change(session, pause, "paused", actor=SYSTEM, reason=reason, now=now, probe_at=probe_at.isoformat())


def begin_to_resume(session: AsyncSession, pause: Pause, reason: str, now: datetime) -> None:
    """Let the cases that wait go on, a few a second, then more."""
    pause.rate = FIRST_RATE
    change(session, pause, "resuming", actor=SYSTEM, reason=reason, now=now, rate=pause.rate)


def change(
    session: AsyncSession,
    pause: Pause,
    state: str,
    *,
    actor: Actor,
    reason: str,
    now: datetime,
    role: str | None = None,
    idempotency_key: str | None = None,
    content_digest: bytes | None = None,
    traceparent: str | None = None,
    **data: object,
) -> None:
    """Write what the pause becomes, and who did it."""
    pause.number += 1
    pause.state, pause.since, pause.reason = state, now, reason
    pause.actor_id, pause.actor_via = actor.id, actor.via
    pause.failing, pause.probes = [], pause.probes if state == "probing" else []
    if state in {"resuming", "open"}:
        pause.probe_at = None
    session.add(
        PauseChange(
            key=pause.key,
            number=pause.number,
            state=state,
            at=now,
            actor_id=actor.id,
            actor_role=role,
            actor_via=actor.via,
            reason=reason,
            data=data,
            idempotency_key=idempotency_key,
            content_digest=content_digest,
            traceparent=traceparent,
        )
    )


def allowed_rate(pause: Pause, now: datetime) -> int:
    """Cases a second that may be woken: what the resume said; of the breaker's own resume more and more."""
    if pause.actor_id != SYSTEM.id:
        return pause.rate
    doubled = 2 ** min(int((now - pause.since) / DOUBLES_EVERY), 10)
    return pause.rate * min(doubled, MOST)
