"""Callbacks: partners' news of what they acknowledged; stored before it is answered, and used exactly once.

Storing needs no knowledge of what the answer means, so the API does it. Only the body of the step's activity can read
an answer, so the worker takes it in: by a message of the outbox, or by the step's next attempt, whichever comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import and_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import effects, outcomes
from caseward.cases.locked import LockedCase, lock_case
from caseward.cases.outcomes import Settlement
from caseward.db.session import Database, database_now
from caseward.db.tables import Attempt, Callback, Effect
from caseward.documents.callbacks import CallbackDocument, CallbackList, DismissalDocument
from caseward.documents.parts import ActorDocument
from caseward.errors import CaseNotFound
from caseward.failpoints import failpoint
from caseward.outbox import store
from caseward.partner import Offer
from caseward.process import Catalogue
from caseward.situation import LEFT_OUT, step_title

PAGE = 200  # the oldest first: whoever works them off sees the rest then


@dataclass(frozen=True, kw_only=True)
class PartnerEvent:
    """What a partner called back, its signature verified."""

    partner: str
    event_id: str
    effect_key: str
    call: str | None
    outcome: Literal["succeeded", "failed"]
    answer: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


async def receive(database: Database, catalogue: Catalogue, event: PartnerEvent) -> bool:
    """Store an event and promise to take it in, in one transaction; False where both were done before.

    What belongs to no effect of this partner's is parked; sent again once there is such an effect, it is taken in.
    """
    async with database.transaction() as session:
        work = await _case_of(session, catalogue, event)
        cases = [work.case.id] if work else []
        new = await _store(session, work, event)
        await failpoint("callback.before_commit", *cases)
    await failpoint("callback.after_commit", *cases)
    return new


async def _store(session: AsyncSession, work: LockedCase | None, event: PartnerEvent) -> bool:
    inserted = await session.scalar(
        # A twin that comes at the same time waits here for the first one's commit.
        insert(Callback)
        .values(
            partner=event.partner,
            event_id=event.event_id,
            effect_key=event.effect_key,
            case_id=work.case.id if work else None,
            call=event.call,
            outcome=event.outcome,
            answer=None if event.answer is None else dict(event.answer),
            error=None if event.error is None else dict(event.error),
            parked=work is None,
            received_at=work.now if work else await database_now(session),
        )
        .on_conflict_do_nothing()
        .returning(Callback.event_id)
    )
    if inserted is None and (work is None or not await _unparked(session, work, event)):
        return False
    if work is not None:
        effect = work.effects.get(event.effect_key) or await session.get_one(Effect, event.effect_key)
        step = work.process.steps.get(effect.step)
        work.entry(
            "effect.called_back",
            effect=effect,
            title=step_title(step, "undo" if effect.direction == "undo" else "do") if step else effect.step,
            partner=event.partner,
            outcome=event.outcome,
            event_id=event.event_id,
        )
        work.touch()
        payload = {"partner": event.partner, "event_id": event.event_id}
        store.put(session, case_id=work.case.id, operation_id=None, payload=payload, destination=store.TO_CALLBACKS)
    return True


async def _unparked(session: AsyncSession, work: LockedCase, event: PartnerEvent) -> bool:
    """Its key was not known when it came first, or its process was not declared: now it is news of this case."""
    stored = await session.get_one(Callback, (event.partner, event.event_id), with_for_update=True)
    if not stored.parked or stored.effect_key != event.effect_key:
        return False
    stored.parked, stored.case_id = False, work.case.id
    return True


async def _case_of(session: AsyncSession, catalogue: Catalogue, event: PartnerEvent) -> LockedCase | None:
    """The case that the event is about, locked; None where nothing here knows its key as this partner's."""
    known = (
        await session.execute(select(Effect.case_id, Effect.partner).where(Effect.key == event.effect_key))
    ).one_or_none()
    if known is None or known.partner != event.partner:
        return None
    try:
        return await lock_case(session, catalogue, known.case_id)
    except CaseNotFound:  # its process is no longer declared
        return None


async def waiting_for(session: AsyncSession, effect_key: str) -> list[Callback]:
    """What was stored for an effect and not taken in yet, in the order in which it came. Under the case's lock."""
    found = await session.scalars(
        select(Callback)
        .where(Callback.effect_key == effect_key, Callback.used_at.is_(None), ~Callback.parked)
        .order_by(Callback.received_at, Callback.event_id)
    )
    return list(found)


async def find(session: AsyncSession, *, partner: str, event_id: str) -> Callback:
    """The stored event. Call under the case's lock, or it may be taken in meanwhile."""
    return await session.get_one(Callback, (partner, event_id))


async def take_in(work: LockedCase, effect: Effect, callback: Callback, offer: Offer, said: Settlement) -> None:
    """Write what a callback said of its effect, and what follows. News only moves an effect forward.

    Raises LeaseHeld where a refusal comes while an attempt is under way, whose own outcome comes first.
    """
    if effect.state == "running" and said.outcome == "failed":
        await effects.lapse(work, effect)
    callback.used_at = work.now
    if said.outcome == "succeeded":
        await _end_attempt(work, effect)
        await outcomes.land(work, effect, offer, said)
    elif not await _speaks_for_all(work, effect, offer):
        await _refused_one_of_several(work, effect, offer, said)
    elif effect.outcome == "succeeded":
        if effect.decision not in LEFT_OUT:
            await outcomes.contradict(work, effect, said)
    elif effect.state == "settled":
        outcomes.refused_late(work, effect, said)
    elif not (effect.state == "blocked" and effect.outcome == "failed"):
        foreign = effect.direction == "do" and effect.operation_id != effect.driven_by
        await outcomes.not_yet(work, effect, offer, said, settle_only=foreign)
    await outcomes.finish_retry(work, effect)


async def _end_attempt(work: LockedCase, effect: Effect) -> None:
    """The attempt under way has its outcome; whatever its worker still hears is measured against it."""
    if effect.state == "running":
        attempt = await work.session.get_one(Attempt, (effect.key, effect.attempt_count))
        work.end_attempt(effect, attempt, "succeeded", attempt.error, at=work.now)


async def _speaks_for_all(work: LockedCase, effect: Effect, offer: Offer) -> bool:
    """A refusal is about everything ever sent under the key.

    Of a partner that takes each request by itself, it may be about one of them, and another may have succeeded.
    """
    if offer.idempotent or offer.probe:
        return True
    attempts = await effects.attempts_of(work.session, [effect.key])
    return sum(attempt.outcome != "failed" for attempt in attempts) <= 1


async def _refused_one_of_several(work: LockedCase, effect: Effect, offer: Offer, said: Settlement) -> None:
    """It proves nothing of the others; where the partner was to tell us later, nobody else can any more."""
    if effect.state == "settled" or effect.outcome == "succeeded":
        return  # told in the timeline when it came
    effect.outcome = "unknown"
    foreign = effect.direction == "do" and effect.operation_id != effect.driven_by
    await outcomes.not_yet(work, effect, offer, outcomes.unproved(said), settle_only=foreign)


async def list_callbacks(
    session: AsyncSession, *, parked: bool, dismissed: bool = False, limit: int = PAGE
) -> CallbackList:
    """Callbacks that are parked, or that still wait to be taken in, oldest first; or those dismissed last."""
    if dismissed:
        query = select(Callback).where(Callback.dismissed_at.is_not(None)).order_by(Callback.dismissed_at.desc())
    else:
        waiting = and_(Callback.used_at.is_(None), ~Callback.parked)
        wanted = and_(Callback.parked, Callback.dismissed_at.is_(None)) if parked else waiting
        query = select(Callback).where(wanted).order_by(Callback.received_at)
    return CallbackList(callbacks=[callback_document(row) for row in await session.scalars(query.limit(limit))])


def callback_document(row: Callback) -> CallbackDocument:
    """It as it is shown."""
    dismissed = None
    if row.dismissed_at is not None:
        by = ActorDocument(id=row.dismissed_by or "", role=row.dismissed_role, via=row.dismissed_via or "")
        dismissed = DismissalDocument(by=by, at=row.dismissed_at, reason=row.dismissed_reason or "")
    return CallbackDocument(
        partner=row.partner,
        event_id=row.event_id,
        effect_key=row.effect_key,
        case_id=row.case_id,
        call=row.call,
        outcome=row.outcome,
        answer=row.answer,
        error=row.error,
        parked=row.parked,
        received_at=row.received_at,
        used_at=row.used_at,
        dismissed=dismissed,
    )
