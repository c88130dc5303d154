"""Saved views: filters of the work, by actor, each under a name of the actor's own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.db.session import database_now
from caseward.db.tables import SavedView
from caseward.errors import CommandRefused

MOST_VIEWS = 50  # of one actor: as many as still are a list to choose from
_LOCK = text("SELECT pg_advisory_xact_lock(:lock)")


class ViewRefused(CommandRefused):
    """A view can't be saved or named like this."""

    code: ClassVar[str] = "view_refused"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "Not saved"


@dataclass(frozen=True)
class Saved:
    """A view as it was saved."""

    name: str
    filter: Mapping[str, Any]


async def saved_views(session: AsyncSession, actor_id: str) -> Sequence[Saved]:
    """Those of this actor, by name."""
    rows = await session.scalars(select(SavedView).where(SavedView.actor_id == actor_id).order_by(SavedView.name))
    return [Saved(row.name, row.filter) for row in rows]


async def save_view(session: AsyncSession, actor_id: str, name: str, wanted: Mapping[str, str]) -> None:
    """Save it, in the place of one of the same name. Raises ViewRefused."""
    await _alone(session, actor_id)
    others = select(func.count()).where(SavedView.actor_id == actor_id, SavedView.name != name)
    if (await session.scalar(others) or 0) >= MOST_VIEWS:
        raise ViewRefused(f"You have {MOST_VIEWS} views already: delete one of them first.")
    changed = {"filter": dict(wanted), "saved_at": await database_now(session)}
    row = insert(SavedView).values(actor_id=actor_id, name=name, **changed)
    await session.execute(row.on_conflict_do_update(index_elements=["actor_id", "name"], set_=changed))


async def rename_view(session: AsyncSession, actor_id: str, name: str, *, to: str) -> None:
    """Another name for it. Raises ViewRefused where it is taken; a view that is gone stays gone."""
    await _alone(session, actor_id)
    if to != name and await session.get(SavedView, (actor_id, to)) is not None:
        raise ViewRefused("Another view of yours has this name.")
    await session.execute(_one(update(SavedView), actor_id, name).values(name=to))


async def delete_view(session: AsyncSession, actor_id: str, name: str) -> None:
    """Forget it."""
    await session.execute(_one(delete(SavedView), actor_id, name))


def _one(statement: Any, actor_id: str, name: str) -> Any:
    return statement.where(SavedView.actor_id == actor_id, SavedView.name == name)


async def _alone(session: AsyncSession, actor_id: str) -> None:
    """Nobody else changes the actor's views until this transaction ends: two windows together keep to the limits."""
    lock = hashlib.sha256(f"saved_views\0{actor_id}".encode()).digest()[:8]
    await session.execute(_LOCK, {"lock": int.from_bytes(lock, signed=True)})
