"""Proposals as they stand: read back as plain data, and ended when nobody can confirm them any more."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.locked import LockedCase
from caseward.db.tables import Case, Operation, ProposalAnswer
from caseward.policy import Action, action_title
from caseward.process import Confirmation
from caseward.situation import SYSTEM, Actor, Bound, Given, ProposalView


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """What `operations.proposal` keeps."""

    bound: Bound
    confirmation: Confirmation
    content: str
    """Digest of input and reason, so that nothing is confirmed that was altered behind our back."""
    at: datetime


_PROPOSED = TypeAdapter(Proposed)


def packed(proposed: Proposed) -> dict[str, Any]:
    """As JSON."""
    return to_jsonable_python(proposed)


def unpacked(operation: Operation) -> Proposed | None:
    """What was proposed; None for an operation that never needed confirmation."""
    return None if operation.proposal is None else _PROPOSED.validate_python(operation.proposal)


def content_of(given: Mapping[str, Any], reason: str | None) -> str:
    """Digest of what a proposal says."""
    return hashlib.sha256(json.dumps([given, reason], sort_keys=True, separators=(",", ":")).encode()).hexdigest()


async def proposals_of(session: AsyncSession, cases: Iterable[Case]) -> dict[UUID, tuple[ProposalView, ...]]:
    """By case: what waits for confirmation in it, the oldest first. Those in which nothing does are left out."""
    asked = [case.id for case in cases if case.proposals]
    if not asked:
        return {}
    rows = await session.scalars(
        select(Operation).where(Operation.case_id.in_(asked), Operation.state == "proposed").order_by(Operation.id)
    )
    operations = rows.all()
    answers = await answers_to(session, [operation.id for operation in operations])
    found: dict[UUID, tuple[ProposalView, ...]] = defaultdict(tuple)
    for operation in operations:
        found[operation.case_id] += (_view(operation, answers[operation.id]),)
    return found


async def answers_to(session: AsyncSession, operation_ids: list[UUID]) -> Mapping[UUID, list[ProposalAnswer]]:
    """By operation: what people answered, in order."""
    answers: dict[UUID, list[ProposalAnswer]] = defaultdict(list)
    if not operation_ids:
        return answers
    rows = await session.scalars(
        select(ProposalAnswer)
        .where(ProposalAnswer.operation_id.in_(operation_ids))
        .order_by(ProposalAnswer.operation_id, ProposalAnswer.number)
    )
    for row in rows:
        answers[row.operation_id].append(row)
    return answers


def _view(operation: Operation, answers: list[ProposalAnswer]) -> ProposalView:
    proposed = unpacked(operation)
    if proposed is None or operation.expires_at is None:
        message = f"operation {operation.id} is proposed and does not say what"
        raise AssertionError(message)
    role, person = operation.actor_role, operation.on_behalf_of
    lent = ((role, person),) if role is not None and person is not None else ()
    return ProposalView(
        id=operation.id,
        kind=cast("Any", operation.kind),
        name=operation.name,
        step=operation.step,
        item=operation.item,
        proposer=Actor(operation.actor_id, frozenset({role} if role else ()), operation.actor_via, lent),
        reason=operation.reason,
        input=operation.input,
        bound=proposed.bound,
        confirmation=proposed.confirmation,
        given=tuple(given_by(answer) for answer in answers if answer.answer == "confirmed"),
        proposed_at=proposed.at,
        expires_at=operation.expires_at,
        intact=content_of(operation.input, operation.reason) == proposed.content,
    )


def given_by(answer: ProposalAnswer) -> Given:
    """The row as plain data."""
    return Given(
        actor_id=answer.actor_id,
        role=answer.actor_role,
        via=answer.actor_via,
        reason=answer.reason,
        at=answer.at,
        on_behalf_of=answer.on_behalf_of,
    )


def end_proposal(
    work: LockedCase,
    operation: Operation,
    state: Literal["declined", "expired"],
    *,
    actor: Actor = SYSTEM,
    role: str | None = None,
    reason: str | None = None,
) -> None:
    """Close it without ever accepting it."""
    operation.state, operation.finished_at = state, work.now
    work.case.proposals -= 1
    title = action_title(work.process, Action(cast("Any", operation.kind), operation.name))
    work.entry(
        "operation.declined" if state == "declined" else "operation.expired",
        operation=operation,
        actor=actor,
        role=role,
        reason=reason,
        action=title,
        step=operation.step,
    )


async def end_proposals(
    work: LockedCase, because: str, *, keep: Operation | None = None, effect_key: str | None = None
) -> None:
    """Decline what nobody can confirm any more: all of the case, or what is about one effect. `keep` is accepted."""
    if work.case.proposals == 0:
        return
    rows = await work.session.scalars(
        select(Operation).where(Operation.case_id == work.case.id, Operation.state == "proposed")
    )
    for operation in rows.all():
        concerned = effect_key is None or operation.effect_key == effect_key
        # The database may not know yet what this very transaction has accepted or ended.
        if concerned and operation is not keep and operation.state == "proposed":
            end_proposal(work, operation, "declined", reason=because)
