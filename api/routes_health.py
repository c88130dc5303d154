"""Whether the process lives, and whether it is of use. The only routes without a token."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Session, Wired
from api.errors import DatabaseNotMigrated
from api.responses import problems

router = APIRouter(prefix="/health", tags=["Health"])


class Health(BaseModel):
    """The word for a process that does its work."""

    status: Literal["ok"] = "ok"


@router.get("/live", operation_id="live")
async def live() -> Health:
    """The process answers. Says nothing about what it depends on: restarting it would not mend that."""
    return Health()


@router.get("/ready", operation_id="ready", responses=problems(503))
async def ready(session: Session, wiring: Wired) -> Health:
    """The database can be reached, and has the tables of this version or of a later one."""
    if not await _migrated(session, wiring.revisions):
        raise DatabaseNotMigrated
    return Health()


async def _migrated(session: AsyncSession, known: tuple[str, ...]) -> bool:
    try:
        revision = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except ProgrammingError:
        return False
    # One that we don't know is a later version's: the old server goes on until the new one has taken over.
    return revision is not None and revision not in known[1:]
