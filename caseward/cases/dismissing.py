"""Parked callbacks that somebody looked at and gives up: they belong to no case, so the row itself says who and why."""

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.callbacks import callback_document
from caseward.cases.commands import Envelope, digest_of, lock_key
from caseward.db.session import database_now
from caseward.db.tables import Callback, Effect, Operation
from caseward.documents.callbacks import CallbackDocument
from caseward.errors import ActionNotAllowed, CallbackNeeded, CallbackNotFound, IdempotencyKeyReused, Reason
from caseward.process import OPERATOR, SENIOR_OPERATOR

MAY_DISMISS = frozenset({OPERATOR, SENIOR_OPERATOR})


async def get_parked(session: AsyncSession, *, partner: str, event_id: str) -> CallbackDocument:
    """A callback that was parked, dismissed or not. Raises CallbackNotFound."""
    return callback_document(await _parked(session, partner, event_id, locked=False))


async def dismiss_callback(
    session: AsyncSession, *, partner: str, event_id: str, reason: str, envelope: Envelope
) -> CallbackDocument:
    """Give up a parked callback; it stays stored, so that the same event again changes nothing.

    Raises ActionNotAllowed, CallbackNotFound, CallbackNeeded where a case waits for it, IdempotencyKeyReused.
    """
    actor = envelope.actor
    role = min(actor.roles & MAY_DISMISS, default=None)
    if role is None:
        raise ActionNotAllowed([Reason("role_missing", "Dismissing a callback takes the role operator.")])
    digest = digest_of("dismiss_callback", partner, event_id, reason)
    twin = await _twin(session, envelope, digest)
    if twin is not None:
        return callback_document(twin)
    callback = await _parked(session, partner, event_id, locked=True)
    if callback.dismissed_at is not None:
        raise ActionNotAllowed([Reason("already_dismissed", f"It was dismissed by {callback.dismissed_by}.")])
    open_still = and_(Effect.key == callback.effect_key, Effect.partner == partner, Effect.state != "settled")
    if await session.scalar(select(Effect.key).where(open_still)) is not None:
        raise CallbackNeeded
    callback.dismissed_at, callback.dismissed_reason = await database_now(session), reason
    callback.dismissed_by, callback.dismissed_role, callback.dismissed_via = actor.id, role, actor.via
    callback.idempotency_key, callback.content_digest = envelope.idempotency_key, digest
    callback.traceparent = envelope.traceparent
    return callback_document(callback)


async def _parked(session: AsyncSession, partner: str, event_id: str, *, locked: bool) -> Callback:
    callback = await session.get(Callback, (partner, event_id), with_for_update=locked or None)
    if callback is None or not callback.parked:
        raise CallbackNotFound
    return callback


async def _twin(session: AsyncSession, envelope: Envelope, digest: bytes) -> Callback | None:
    """What the same command dismissed before. Raises IdempotencyKeyReused where the key belongs to another."""
    await lock_key(session, envelope)
    mine = {"dismissed_by": envelope.actor.id, "idempotency_key": envelope.idempotency_key}
    twin = await session.scalar(select(Callback).filter_by(**mine))
    other = select(Operation.id).filter_by(actor_id=envelope.actor.id, idempotency_key=envelope.idempotency_key)
    foreign = twin.content_digest != digest if twin is not None else await session.scalar(other) is not None
    if foreign:
        raise IdempotencyKeyReused("This Idempotency-Key belongs to a command with other content.")
    return twin
