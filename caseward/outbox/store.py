"""The outbox's rows: put, claim, begin, mark, postpone, park."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from caseward import metrics
from caseward.db.counting import Count, note
from caseward.db.tables import Case, Message, Operation

CHANNEL = "caseward_outbox"  # a trigger notifies it for every new message
TO_TEMPORAL = "temporal"
TO_CALLBACKS = "callbacks"  # to whoever can read a partner's stored answer: the body of the step's activity
TO_MAIL = "mail"  # to a person, by SMTP
# Longer than a delivery may take, so that nobody else takes it meanwhile; a dispatcher that died is replaced after it.
CLAIM = timedelta(seconds=10)


@dataclass(frozen=True)
class Claimed:
    """A message that is ours to deliver until its claim ends."""

    id: int
    destination: str
    case_id: UUID
    operation_id: UUID | None
    payload: dict[str, Any]
    tries: int
    again: bool = False
    """Somebody tried before, and may have delivered it without being able to write that down."""
    begun: bool = False
    """Of a mail: somebody began to send it, and nobody wrote down what became of that."""


def put(
    session: AsyncSession,
    *,
    case_id: UUID,
    operation_id: UUID | None,
    payload: dict[str, Any],
    destination: str = TO_TEMPORAL,
) -> None:
    """Promise a message, by default to the case's workflow, in the caller's transaction."""
    session.add(Message(destination=destination, case_id=case_id, operation_id=operation_id, payload=payload))


# Made once, because making them takes longer than running them.
_DUE = (
    select(Message.id)
    .where(
        Message.dispatched_at.is_(None),
        ~Message.parked,
        Message.next_at <= func.clock_timestamp(),
        (Message.destination == TO_MAIL) == bindparam("mails"),
    )
    .order_by(Message.next_at, Message.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_CLAIM = (
    update(Message)
    .where(Message.id.in_(_DUE.scalar_subquery()))
    .values(next_at=func.clock_timestamp() + CLAIM, tries=Message.tries + 1)
    .returning(
        Message.id,
        Message.destination,
        Message.case_id,
        Message.operation_id,
        Message.payload,
        Message.tries,
        or_(Message.tries > 1, Message.error.is_not(None)),
        Message.begun_at.is_not(None),
    )
    .execution_options(synchronize_session=False)
)
# Whoever changes operations holds their case, or two of them may each wait for what the other has.
_TURN = (
    select(Case.id)
    .where(Case.id.in_(bindparam("cases", expanding=True)))
    .order_by(Case.id)
    .with_for_update(key_share=True)
    .cte("turn")
)
_OPERATIONS_DISPATCHED = (
    update(Operation)
    .where(
        Operation.case_id.in_(select(_TURN.c.id)),
        Operation.id.in_(bindparam("operations", expanding=True)),
        Operation.dispatched_at.is_(None),
    )
    .values(dispatched_at=func.clock_timestamp())
    .returning(Operation.process, Operation.kind, Operation.dispatched_at - Operation.accepted_at)
    .execution_options(synchronize_session=False)
)
_MESSAGES_DISPATCHED = (
    update(Message)
    # Whoever comes late changes nothing: it was delivered, or dismissed with a reason that stays.
    .where(Message.id.in_(bindparam("messages", expanding=True)), Message.dispatched_at.is_(None))
    .values(dispatched_at=func.clock_timestamp(), error=None, parked=False)
    .returning(Message.destination, Message.dispatched_at - Message.created_at)
    .execution_options(synchronize_session=False)
)


async def claim(session: AsyncSession, *, limit: int, mails: bool = False) -> list[Claimed]:
    """Take what is due and nobody else's, oldest first: mails, or all else. Should we die, it is due again later."""
    rows = await session.execute(_CLAIM, {"most": limit, "mails": mails})
    return sorted((Claimed(*row) for row in rows), key=lambda message: message.id)


async def begin(session: AsyncSession, message: Claimed) -> bool:
    """Write down that a mail may go out from now on; False where another dispatcher has it by now.

    The claim begins anew, so that nobody finds it before this attempt has ended.
    """
    row = await session.execute(
        update(Message)
        .where(
            Message.id == message.id,
            Message.begun_at.is_(None),
            Message.dispatched_at.is_(None),
            ~Message.parked,
        )
        .values(begun_at=func.clock_timestamp(), next_at=func.clock_timestamp() + CLAIM)
        .returning(Message.id)
        .execution_options(synchronize_session=False)
    )
    return row.first() is not None


async def not_sent(session: AsyncSession, message: Claimed) -> None:
    """Take that back: the mail certainly did not go out."""
    await session.execute(
        update(Message)
        .where(Message.id == message.id, Message.dispatched_at.is_(None))
        .values(begun_at=None)
        .execution_options(synchronize_session=False)
    )


async def mark_dispatched(session: AsyncSession, messages: Sequence[Claimed]) -> None:
    """Keep the promise on record: the destination has it."""
    operations = [message.operation_id for message in messages if message.operation_id is not None]
    if operations:
        cases = sorted({message.case_id for message in messages})
        found = await session.execute(_OPERATIONS_DISPATCHED, {"operations": operations, "cases": cases})
        for process, kind, took in found:
            _note(session, partial(metrics.OPERATION_DISPATCH.labels(process, kind).observe, took.total_seconds()))
    for destination, took in await session.execute(
        _MESSAGES_DISPATCHED, {"messages": [message.id for message in messages]}
    ):
        _note(session, partial(metrics.MESSAGE_DISPATCH.labels(destination).observe, took.total_seconds()))


async def postpone(
    session: AsyncSession, messages: Sequence[Claimed], *, delay: timedelta, error: str, counts: bool
) -> None:
    """Try again later; `counts` is False where the destination was away, which is no fault of the message."""
    await session.execute(
        update(Message)
        .where(Message.id.in_([message.id for message in messages]), Message.dispatched_at.is_(None))
        .values(
            next_at=func.clock_timestamp() + delay,
            error=error,
            tries=Message.tries if counts else Message.tries - 1,
        )
        .execution_options(synchronize_session=False)
    )
    if counts:
        for message in messages:
            _note(session, metrics.MESSAGES_REFUSED.labels(message.destination).inc)


async def park(session: AsyncSession, message: Claimed, *, error: str) -> bool:
    """Set a message aside that can't be delivered: others go on, somebody has to look at it.

    False where that is over: it was delivered, dismissed or parked meanwhile.
    """
    row = await session.execute(
        update(Message)
        .where(Message.id == message.id, Message.dispatched_at.is_(None), ~Message.parked)
        .values(parked=True, error=error)
        .returning(Message.id)
        .execution_options(synchronize_session=False)
    )
    if row.first() is None:
        return False
    _note(session, metrics.MESSAGES_PARKED.labels(message.destination).inc)
    return True


def _note(session: AsyncSession, count: Count) -> None:
    note(session.sync_session, count)
