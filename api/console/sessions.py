"""Sign-ins: a random id in a cookie, its hash with the actor in the database, so that logout ends it for good."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.db.session import database_now
from caseward.db.tables import SignIn
from caseward.situation import Actor

IDLE = timedelta(hours=2)  # without a click; what an open page fetches by itself is no sign of life
LONGEST = timedelta(hours=12)  # a working day; then they say again who they are
SEEN_EVERY = timedelta(minutes=1)  # so that reading pages is not writing rows
ID_BYTES = 32  # 256 bits: nobody guesses one


@dataclass(frozen=True)
class Session:
    """Who is signed in, and until when."""

    key: str
    """What the cookie holds."""
    actor: Actor
    expires_at: datetime

    @property
    def csrf(self) -> str:
        """What every form of this session carries, and no other site can know."""
        return hmac.new(self.key.encode(), b"csrf", hashlib.sha256).hexdigest()


async def sign_in(session: AsyncSession, actor: Actor, *, until: datetime | None = None) -> Session:
    """A new session for the actor, not longer than `until`; those that are over are removed."""
    now = await database_now(session)
    await session.execute(delete(SignIn).where(_over(now)))
    expires_at = min(now + LONGEST, until) if until else now + LONGEST
    key = secrets.token_urlsafe(ID_BYTES)
    session.add(
        SignIn(
            key_hash=_hash(key),
            actor_id=actor.id,
            roles=sorted(actor.roles),
            created_at=now,
            seen_at=now,
            expires_at=expires_at,
        )
    )
    return Session(key, actor, expires_at)


async def find_session(session: AsyncSession, key: str, *, clicked: bool) -> Session | None:
    """The session with this id, if it has not ended; a click keeps it alive."""
    now = await database_now(session)
    row = await session.scalar(select(SignIn).where(SignIn.key_hash == _hash(key), ~_over(now)))
    if row is None:
        return None
    if clicked and now - row.seen_at > SEEN_EVERY:
        await session.execute(update(SignIn).where(SignIn.key_hash == row.key_hash).values(seen_at=now))
    return Session(key, Actor(row.actor_id, frozenset(row.roles), "console"), row.expires_at)


async def sign_out(session: AsyncSession, key: str) -> None:
    """End it; whoever kept the cookie has nothing."""
    await session.execute(delete(SignIn).where(SignIn.key_hash == _hash(key)))


def _over(now: datetime) -> ColumnElement[bool]:
    return or_(SignIn.expires_at <= now, SignIn.seen_at <= now - IDLE)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
