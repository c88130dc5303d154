"""Commands on the pauses of processes and partners, and how they are looked at. A case's own is an override."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import breaker
from caseward.cases.envelope import Envelope, digest_of, said_before
from caseward.cases.pauses import ensure, keys_of, partner_key, process_key
from caseward.db.session import database_now
from caseward.db.tables import Case, Effect, Pause
from caseward.documents.parts import ActorDocument
from caseward.documents.pauses import PauseDocument, PauseList
from caseward.errors import ActionNotAllowed, InputInvalid, PauseNotFound, Reason
from caseward.process import OPERATOR, SENIOR_OPERATOR, Catalogue
from caseward.situation import SYSTEM

RATE = 20  # cases a second, where a resume says nothing else: what one small partner bears beside its daily work
MAY_PAUSE = frozenset({OPERATOR, SENIOR_OPERATOR})


async def request_pause(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    process: str | None,
    partner: str | None,
    reason: str,
    deadlines: str,
    envelope: Envelope,
) -> PauseDocument:
    """Let nothing new begin in a process, or nothing new be sent to a partner.

    Raises InputInvalid where there is none of this name, ActionNotAllowed, IdempotencyKeyReused.
    """
    key = process_key(process) if process is not None else partner_key(partner or "")
    if key not in keys_of(catalogue):
        field = "process" if process is not None else "partner"
        message = f"There is no {field} of this name."
        raise InputInvalid(message, errors=[{"field": field, "message": message}])
    role = _role(envelope)
    digest = digest_of("pause", key, reason, deadlines)
    now = await database_now(session)
    await ensure(session, [key], now)
    if await said_before(session, envelope, digest) is not None:
        return await get_pause(session, key=key)
    pause = await _locked(session, key)
    if pause.state == "paused" and pause.actor_id != SYSTEM.id:
        raise ActionNotAllowed([Reason("already_paused", f"{key.replace(':', ' ').capitalize()} is paused already.")])
    now = max(await database_now(session), pause.since)
    if deadlines == "frozen":
        # Cases to which the resume before has not come yet are still owed the time from then on.
        pause.frozen_since = pause.frozen_since or now
    pause.deadlines, pause.probe_at = deadlines, None
    breaker.change(
        *(session, pause, "paused"),
        actor=envelope.actor,
        role=role,
        reason=reason,
        now=now,
        idempotency_key=envelope.idempotency_key,
        content_digest=digest,
        traceparent=envelope.traceparent,
        deadlines=deadlines,
    )
    await session.flush()  # the document is read from what stands
    return await get_pause(session, key=key)


async def request_resume(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    pause_id: UUID,
    reason: str,
    rate: int = RATE,
    envelope: Envelope,
) -> PauseDocument:
    """Let what waited go on, `rate` cases a second. Raises PauseNotFound, ActionNotAllowed, IdempotencyKeyReused."""
    key = await session.scalar(select(Pause.key).where(Pause.id == pause_id))
    if key is None or key not in keys_of(catalogue):
        raise PauseNotFound
    role = _role(envelope)
    digest = digest_of("resume", key, reason, rate)
    if await said_before(session, envelope, digest) is not None:
        return await get_pause(session, key=key)
    pause = await _locked(session, key)
    if pause.state not in {"paused", "probing"}:
        message = "It is being resumed already." if pause.state == "resuming" else "Nothing is paused here."
        raise ActionNotAllowed([Reason("not_paused", message)])
    pause.rate = rate
    breaker.change(
        *(session, pause, "resuming"),
        actor=envelope.actor,
        role=role,
        reason=reason,
        now=max(await database_now(session), pause.since),
        idempotency_key=envelope.idempotency_key,
        content_digest=digest,
        traceparent=envelope.traceparent,
        rate=rate,
    )
    await session.flush()  # the document is read from what stands
    return await get_pause(session, key=key)


async def get_pause(session: AsyncSession, *, key: str) -> PauseDocument:
    """One of them as it stands."""
    return _document(await session.get_one(Pause, key), await _waiting(session))


async def list_pauses(session: AsyncSession, catalogue: Catalogue) -> PauseList:
    """The pause of every process and every partner, standing ones first."""
    keys = keys_of(catalogue)
    rows = {row.key: row for row in await session.scalars(select(Pause).where(Pause.key.in_(keys)))}
    if len(rows) < len(keys):
        await ensure(session, [key for key in keys if key not in rows], await database_now(session))
        rows = {row.key: row for row in await session.scalars(select(Pause).where(Pause.key.in_(keys)))}
    waiting = await _waiting(session)
    ordered = sorted(rows.values(), key=lambda row: (row.state == "open", row.key))
    return PauseList(pauses=[_document(row, waiting) for row in ordered])


async def standing_pauses(session: AsyncSession) -> list[PauseDocument]:
    """Those that are not open; writes nothing, so that it may be part of any snapshot."""
    rows = (await session.scalars(select(Pause).where(Pause.state != "open").order_by(Pause.key))).all()
    waiting = await _waiting(session) if rows else {}
    return [_document(row, waiting) for row in rows]


def case_document_of(case: Case) -> PauseDocument:
    """A case's own pause in the same form; its id is the case's."""
    paused: dict[str, Any] = case.paused or {}
    return PauseDocument(
        pause_id=case.id,
        scope="case",
        name=str(case.id),
        state="paused" if paused else "open",
        since=paused.get("since", case.changed_at),
        by=ActorDocument(id=paused["by"], role=None, via=paused["via"]) if paused else None,
        reason=paused.get("reason"),
        deadlines=paused.get("deadlines", "running"),
        rate=None,
        cases_waiting=1 if paused else 0,
        probe_at=None,
        href=f"/v1/pauses/{case.id}/resume",
    )


def _document(row: Pause, waiting: dict[str, int]) -> PauseDocument:
    scope, _, name = row.key.partition(":")
    by = ActorDocument(id=row.actor_id, role=None, via=row.actor_via or "") if row.actor_id else None
    return PauseDocument(
        pause_id=row.id,
        scope=scope,
        name=name,
        state=row.state,
        since=row.since,
        by=by,
        reason=row.reason,
        deadlines=row.deadlines,
        rate=row.rate or None,
        cases_waiting=waiting.get(row.key, 0),
        probe_at=row.probe_at,
        href=f"/v1/pauses/{row.id}/resume",
    )


async def _waiting(session: AsyncSession) -> dict[str, int]:
    """How many cases wait for each."""
    query = select(Effect.paused_by, func.count(Effect.case_id.distinct())).where(Effect.state == "paused")
    return {key: count for key, count in await session.execute(query.group_by(Effect.paused_by)) if key}


async def _locked(session: AsyncSession, key: str) -> Pause:
    """Waits for every reservation that has read it."""
    return await session.get_one(Pause, key, with_for_update=True, populate_existing=True)


def _role(envelope: Envelope) -> str:
    role = min(envelope.actor.roles & MAY_PAUSE, default=None)
    if role is None:
        raise ActionNotAllowed([Reason("role_missing", "Pausing and resuming take the role operator.")])
    return role
