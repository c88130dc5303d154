"""The envelope of a command: what it carries besides its content, and how the same command is known when sent again.

An Idempotency-Key is its actor's own and is kept with what the command made, beside a digest of the content.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Uuid, bindparam, cast, func, literal, null, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from caseward.db.tables import BulkRun, Callback, Delegation, Operation, PauseChange, ProposalAnswer, StoredDocument
from caseward.errors import IdempotencyKeyReused
from caseward.situation import Actor

_NOTHING = cast(null(), Uuid)
# These are made once, because making them takes longer than running them.
_ADVISORY_LOCK = select(func.pg_advisory_xact_lock(bindparam("lock")))


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What every command carries besides its content."""

    actor: Actor
    idempotency_key: str
    traceparent: str
    if_match: frozenset[int | str] | None = None
    """Versions of which the case must have one: entity tags, or bare numbers for whom pauses don't matter."""
    bulk: "OfBulk | None" = None
    """The bulk run that it belongs to."""


@dataclass(frozen=True)
class OfBulk:
    """A command that is one of many over a frozen list, agreed upon for what was blocked then."""

    bulk_id: UUID
    effect_key: str | None
    """What was blocked; None for the story itself."""
    fingerprint: str | None
    """Why; None where nothing was, so that the case may be wherever the policy lets it."""


def digest_of(*content: Any) -> bytes:
    """What makes two commands the same."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()


def _in(sender: InstrumentedAttribute[Any], made: Any = _NOTHING, case_id: Any = _NOTHING) -> Select[*tuple[Any, ...]]:
    """What one table keeps of the command that came under a key of the sender's."""
    table = sender.class_
    return select(
        literal(table.__tablename__).label("table"), made.label("id"), case_id.label("case_id"), table.content_digest
    ).where(sender == bindparam("actor_id"), table.idempotency_key == bindparam("key"))


# Wherever a command may be kept: a key stands for one command of its actor, of whatever kind.
_KEPT = union_all(
    _in(Operation.actor_id, Operation.id, Operation.case_id),
    _in(ProposalAnswer.actor_id, ProposalAnswer.operation_id, ProposalAnswer.case_id),
    _in(StoredDocument.actor_id, StoredDocument.id, StoredDocument.case_id),
    _in(BulkRun.actor_id, BulkRun.id),
    _in(Delegation.from_actor, Delegation.id),
    _in(PauseChange.actor_id),
    _in(Callback.dismissed_by),
)


async def kept_under_its_key(session: AsyncSession, envelope: Envelope) -> Sequence[Row[Any]]:
    """What came under this key: its table, the id and the case of what it made where it made something, its digest."""
    sent = {"actor_id": envelope.actor.id, "key": envelope.idempotency_key}
    return (await session.execute(_KEPT, sent)).all()


async def said_before(session: AsyncSession, envelope: Envelope, digest: bytes) -> Row[Any] | None:
    """What is kept of the same command sent before; a concurrent twin waits here for the first one's commit.

    Raises IdempotencyKeyReused where the key belongs to a command with other content.
    """
    await lock_text(session, f"{envelope.actor.id}\0{envelope.idempotency_key}")
    found = await kept_under_its_key(session, envelope)
    twin = next((row for row in found if row.content_digest == digest), None)
    if twin is None and found:
        raise IdempotencyKeyReused
    return twin


async def lock_text(session: AsyncSession, text: str) -> None:
    """Have what the text names to ourselves until this transaction ends."""
    lock = hashlib.sha256(text.encode()).digest()[:8]
    await session.execute(_ADVISORY_LOCK, {"lock": int.from_bytes(lock, signed=True)})
