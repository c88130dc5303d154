"""What is blocked, in groups that one decision could mend, and the list of one group as it stands now."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    String,
    and_,
    case,
    cast,
    func,
    null,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.bulk import fingerprint
from caseward.db.tables import Case, Effect, Operation
from caseward.documents.bulk import BulkGroup, BulkGroups
from caseward.process import Catalogue, Process
from caseward.situation import UNDO_SUFFIX, Actor, Direction, step_title


def _blocked() -> Any:
    """Every effect that blocks the operation in flight, and every operation that is blocked itself."""
    of_effects = (
        select(
            Case.id.label("case_id"),
            Case.process,
            Effect.key.label("effect_key"),
            (Effect.step + case((Effect.direction == "undo", UNDO_SUFFIX), else_="")).label("step"),
            Effect.item,
            Effect.partner,
            Effect.cause,
            Effect.error["class"].astext.label("error_class"),
            Effect.error["code"].astext.label("error_code"),
            Effect.error["message"].astext.label("message"),
            Effect.recovery_owner,
            Effect.outcome,
            Effect.since,
        )
        .join(Case, Case.operation_id == Effect.driven_by)
        .where(Effect.state == "blocked")
    )
    nothing = null()
    of_stories = (
        select(
            Case.id,
            Case.process,
            nothing,
            nothing,
            nothing,
            nothing,
            Operation.blocked["cause"].astext,
            nothing,
            Operation.blocked["error"]["code"].astext,
            Operation.blocked["error"]["message"].astext,
            Operation.blocked["recovery_owner"].astext,
            nothing,
            cast(Operation.blocked["since"].astext, DateTime(timezone=True)),
        )
        .join(Case, Case.operation_id == Operation.id)
        .where(Operation.blocked.is_not(None))
    )
    return union_all(of_effects, of_stories).subquery("blocked")


BLOCKED = _blocked()
_ALIKE = tuple(BLOCKED.c[name] for name in ("process", "step", "partner", "cause", "error_class", "error_code"))
_GROUPS = (
    select(
        *_ALIKE,
        func.count().label("cases"),
        func.count().filter(BLOCKED.c.outcome == "unknown").label("unknown"),
        func.min(BLOCKED.c.since).label("since"),
        func.max(BLOCKED.c.since).label("latest"),
        func.array_agg(aggregate_order_by(BLOCKED.c.message, BLOCKED.c.since))[1].label("example"),
        func.min(BLOCKED.c.recovery_owner).label("recovery_owner"),
    )
    .group_by(*_ALIKE)
    .order_by(func.count().desc(), func.min(BLOCKED.c.since))
)


@dataclass(frozen=True)
class Frozen:
    """One thing that is blocked."""

    case_id: UUID
    process: str
    effect_key: str | None = None
    step: str | None = None
    item: str | None = None
    partner: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class BlockedCase:
    """One case of a group, for people."""

    case_id: UUID
    business_key: str
    title: str
    item: str | None
    message: str | None
    since: datetime
    key: str
    """With `since` its place in the list."""


async def blocked_groups(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    actor: Actor,
    process: str | None = None,
    until: datetime | None = None,
    only: Collection[UUID] = (),
) -> BulkGroups:
    """What is blocked among the cases that this actor may see, the largest group first; with `until`, only what was
    blocked by then, with `only` in none but these cases."""
    visible = [name for name, declared in catalogue.items() if declared.visible_to(actor.roles)]
    wanted = [name for name in visible if process in {None, name}]
    rows = await session.execute(_GROUPS.where(BLOCKED.c.process.in_(wanted), _among(until, only)))
    return BulkGroups(
        groups=[
            BulkGroup(
                process=row.process,
                step=row.step,
                title=_title(catalogue[row.process], row.step),
                partner=row.partner,
                cause=row.cause,
                error_class=row.error_class,
                error_code=row.error_code,
                fingerprint=fingerprint(row.step, row.partner, row.cause, row.error_class, row.error_code),
                count=row.cases,
                unknown=row.unknown,
                since=row.since,
                latest=row.latest,
                example=row.example,
                recovery_owner=row.recovery_owner,
            )
            for row in rows
        ]
    )


def _title(process: Process, address: str | None) -> str:
    if address is None:
        return "The story itself"
    step = process.steps.get(address.removesuffix(UNDO_SUFFIX))
    direction: Direction = "undo" if address.endswith(UNDO_SUFFIX) else "do"
    return step_title(step, direction) if step else address


def _among(until: datetime | None, only: Collection[UUID]) -> ColumnElement[bool]:
    by_then = true() if until is None else BLOCKED.c.since <= until
    return and_(by_then, BLOCKED.c.case_id.in_(only) if only else true())


def _alike(group: BulkGroup) -> ColumnElement[bool]:
    alike = (group.process, group.step, group.partner, group.cause, group.error_class, group.error_code)
    return and_(*(column.is_not_distinct_from(value) for column, value in zip(_ALIKE, alike, strict=True)))


async def blocked_in(
    session: AsyncSession, group: BulkGroup, *, until: datetime | None = None, only: Collection[UUID] = ()
) -> list[Frozen]:
    """Everything that belongs to the group now, in order of age."""
    return await _frozen(session, _in_order(and_(_alike(group), _among(until, only))))


_KEY = func.coalesce(BLOCKED.c.effect_key, cast(BLOCKED.c.case_id, String))


async def blocked_cases(
    session: AsyncSession,
    group: BulkGroup,
    *,
    until: datetime | None = None,
    only: Collection[UUID] = (),
    after: tuple[datetime, str] | None = None,
    limit: int,
) -> list[BlockedCase]:
    """A page of the group's cases, the oldest first: those behind the place `after`."""
    place = tuple_(BLOCKED.c.since, _KEY)
    query = (
        select(BLOCKED, _KEY.label("key"), Case.business_key, Case.title)
        .join(Case, Case.id == BLOCKED.c.case_id)
        .where(_alike(group), _among(until, only), true() if after is None else place > after)
        .order_by(BLOCKED.c.since, _KEY)
        .limit(limit)
    )
    return [
        BlockedCase(
            case_id=row.case_id,
            business_key=row.business_key,
            title=row.title,
            item=row.item,
            message=row.message,
            since=row.since,
            key=row.key,
        )
        for row in await session.execute(query)
    ]


async def blocked_of(session: AsyncSession, case_ids: Sequence[UUID]) -> list[Frozen]:
    """What is blocked in these cases, in order of age; then those of them in which nothing is."""
    found = await _frozen(session, _in_order(BLOCKED.c.case_id.in_(case_ids)))
    missing = set(case_ids) - {each.case_id for each in found}
    rows = await session.execute(select(Case.id, Case.process).where(Case.id.in_(missing)).order_by(Case.id))
    return found + [Frozen(row.id, row.process) for row in rows]


def _in_order(which: ColumnElement[bool]) -> Select[Any]:
    return select(BLOCKED).where(which).order_by(BLOCKED.c.since, BLOCKED.c.case_id, BLOCKED.c.effect_key)


async def _frozen(session: AsyncSession, query: Select[Any]) -> list[Frozen]:
    return [
        Frozen(
            row.case_id,
            row.process,
            row.effect_key,
            row.step,
            row.item,
            row.partner,
            fingerprint(row.step, row.partner, row.cause, row.error_class, row.error_code),
        )
        for row in await session.execute(query)
    ]
