"""What is parked, and what people do with it: messages of the outbox, and callbacks that belong to no case.

A message has its case, whose timeline tells all. A callback has none, so the row itself says who gave it up and why.
"""

from uuid import UUID

from sqlalchemy import and_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.callbacks import callback_document
from caseward.cases.envelope import Envelope, digest_of, said_before
from caseward.cases.locked import LockedCase, lock_case
from caseward.db.session import Database, database_now
from caseward.db.tables import Callback, Effect, Message, Operation
from caseward.documents.callbacks import CallbackDocument
from caseward.errors import (
    ActionNotAllowed,
    CallbackNeeded,
    CallbackNotFound,
    MessageNeeded,
    MessageNotFound,
    Reason,
)
from caseward.outbox.store import TO_CALLBACKS, TO_TEMPORAL
from caseward.process import OPERATOR, SENIOR_OPERATOR, Catalogue
from caseward.situation import FINISHED, Actor

MAY_DISMISS = frozenset({OPERATOR, SENIOR_OPERATOR})


async def note_parked(database: Database, catalogue: Catalogue, *, case_id: UUID, destination: str, error: str) -> None:
    """Tell in the case's timeline that a message of it was parked."""
    async with database.transaction() as session:
        work = await lock_case(session, catalogue, case_id)
        work.entry("message.parked", destination=destination, message=error)
        work.touch()


async def requeue_message(session: AsyncSession, catalogue: Catalogue, *, message_id: int, actor: Actor) -> Message:
    """Release a parked outbox message for another try. Raises MessageNotFound."""
    work, message = await _parked_message(session, catalogue, message_id)
    message.parked, message.tries, message.next_at = False, 0, work.now
    message.begun_at = None  # of a mail: whoever releases it says that it did not go out, or may go out twice
    work.entry("message.requeued", actor=actor, destination=message.destination)
    work.touch()
    await session.execute(text("SELECT pg_notify('caseward_outbox', '')"))
    return message


async def dismiss_message(
    session: AsyncSession, catalogue: Catalogue, *, message_id: int, actor: Actor, reason: str
) -> Message:
    """Give up a parked outbox message that needs no delivery any more. Raises MessageNotFound, MessageNeeded."""
    work, message = await _parked_message(session, catalogue, message_id)
    if await _is_needed(session, message):
        raise MessageNeeded
    # For whoever delivers it is over; why, says the error that stays with it, and the timeline.
    message.parked, message.dispatched_at, message.error = False, work.now, f"dismissed: {reason}"
    work.entry("message.dismissed", actor=actor, reason=reason, destination=message.destination)
    work.touch()
    return message


async def _parked_message(session: AsyncSession, catalogue: Catalogue, message_id: int) -> tuple[LockedCase, Message]:
    """The parked message and its case, locked in this order. Raises MessageNotFound."""
    message = await session.get(Message, message_id)
    if message is None or not message.parked:
        raise MessageNotFound
    work = await lock_case(session, catalogue, message.case_id)
    await session.refresh(message, with_for_update=True)
    if not message.parked:
        raise MessageNotFound
    return work, message


async def _is_needed(session: AsyncSession, message: Message) -> bool:
    """Without it an operation would never be worked on, or a partner's answer never taken in."""
    if message.destination == TO_TEMPORAL and message.operation_id is not None:
        operation = await session.get_one(Operation, message.operation_id)
        return operation.state not in FINISHED
    if message.destination == TO_CALLBACKS:
        callback = await session.get(Callback, (message.payload.get("partner"), message.payload.get("event_id")))
        return callback is not None and callback.used_at is None
    return False


async def get_parked(session: AsyncSession, *, partner: str, event_id: str) -> CallbackDocument:
    """A callback that was parked, dismissed or not. Raises CallbackNotFound."""
    return callback_document(await _parked_callback(session, partner, event_id, locked=False))


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
    if await said_before(session, envelope, digest) is not None:
        return callback_document(await session.get_one(Callback, (partner, event_id)))
    callback = await _parked_callback(session, partner, event_id, locked=True)
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


async def _parked_callback(session: AsyncSession, partner: str, event_id: str, *, locked: bool) -> Callback:
    callback = await session.get(Callback, (partner, event_id), with_for_update=locked or None)
    if callback is None or not callback.parked:
        raise CallbackNotFound
    return callback
