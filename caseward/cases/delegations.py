"""Delegations: who stands in for whom. A role that is lent names its owner in all that is done in it.

Only what somebody has themselves can be lent, so nothing is lent on; and only roles of the business: who may mend cases
is said by whoever hands out tokens.
"""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from caseward.cases.envelope import Envelope, digest_of, said_before
from caseward.db.session import database_now
from caseward.db.tables import Delegation
from caseward.documents.people import DelegationDocument, DelegationList
from caseward.errors import ActionNotAllowed, DelegationNotFound, InputInvalid, Reason
from caseward.process import AUDITOR, ENGINE_ROLES, OPERATOR, SENIOR_OPERATOR
from caseward.situation import Actor

LONGEST = timedelta(days=366)  # beyond that it is no absence any more
SEE_ALL = frozenset({OPERATOR, SENIOR_OPERATOR, AUDITOR})


async def standing_in(session: AsyncSession, actor: Actor) -> Actor:
    """The actor with the roles that others have lent them by now, where they don't have them anyway."""
    now = func.clock_timestamp()
    rows = await session.scalars(
        select(Delegation)
        .where(Delegation.to_actor == actor.id, Delegation.until > now, Delegation.from_at <= now)
        .where(Delegation.ended_at.is_(None))
        .order_by(Delegation.created_at, Delegation.id)
    )
    lent: dict[str, str] = {}
    for row in rows:
        for role in row.roles:
            if role not in actor.roles:
                lent.setdefault(role, row.from_actor)
    return Actor(actor.id, actor.roles | set(lent), actor.via, tuple(sorted(lent.items()))) if lent else actor


async def delegate(
    session: AsyncSession,
    *,
    to: str,
    roles: frozenset[str],
    from_at: datetime | None,
    until: datetime,
    reason: str,
    envelope: Envelope,
) -> DelegationDocument:
    """Let somebody stand in for the actor. Raises ActionNotAllowed, InputInvalid, IdempotencyKeyReused."""
    actor, begins = envelope.actor, from_at.isoformat() if from_at else None
    digest = digest_of("delegate", to, sorted(roles), begins, until.isoformat(), reason)
    twin = await said_before(session, envelope, digest)
    if twin is not None:
        return _document(await session.get_one(Delegation, twin.id))
    foreign = sorted(roles - actor.own)
    if foreign or roles & ENGINE_ROLES:
        names = ", ".join(foreign or sorted(roles & ENGINE_ROLES))
        raise ActionNotAllowed([Reason("role_missing", f"You can't lend this: {names}.")])
    now = await database_now(session)
    begin = max(from_at or now, now)
    if to == actor.id:
        raise _wrong("to", "Nobody stands in for themselves.")
    if not begin < until <= begin + LONGEST:
        raise _wrong("until", f"It ends after it begins, and within {LONGEST.days} days.")
    row = Delegation(
        id=uuid7(),
        from_actor=actor.id,
        to_actor=to,
        roles=sorted(roles),
        from_at=begin,
        until=until,
        reason=reason,
        created_at=now,
        ended_at=None,
        ended_by=None,
        idempotency_key=envelope.idempotency_key,
        content_digest=digest,
    )
    session.add(row)
    return _document(row)


def _wrong(field: str, message: str) -> InputInvalid:
    return InputInvalid(message, errors=[{"field": field, "message": message}])


async def end_delegation(session: AsyncSession, *, delegation_id: UUID, actor: Actor) -> DelegationDocument:
    """End it now; by whoever lent, whoever stands in, or a senior operator. A second time changes nothing.

    Raises DelegationNotFound.
    """
    row = await session.get(Delegation, delegation_id, with_for_update=True)
    if row is None or not (actor.id in {row.from_actor, row.to_actor} or SENIOR_OPERATOR in actor.own):
        raise DelegationNotFound
    if row.ended_at is None:
        row.ended_at, row.ended_by = await database_now(session), actor.id
    return _document(row)


async def list_delegations(session: AsyncSession, *, actor: Actor) -> DelegationList:
    """Those that the actor has to do with; operators and auditors see all."""
    query = select(Delegation).order_by(Delegation.id.desc()).limit(200)
    if not actor.own & SEE_ALL:
        query = query.where(or_(Delegation.from_actor == actor.id, Delegation.to_actor == actor.id))
    return DelegationList(delegations=[_document(row) for row in await session.scalars(query)])


def _document(row: Delegation) -> DelegationDocument:
    return DelegationDocument(
        delegation_id=row.id,
        by=row.from_actor,
        to=row.to_actor,
        roles=row.roles,
        from_at=row.from_at,
        until=row.until,
        reason=row.reason,
        ended_at=row.ended_at,
        ended_by=row.ended_by,
        href=f"/v1/delegations/{row.id}",
    )
