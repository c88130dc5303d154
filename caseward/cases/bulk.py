"""Bulk runs, as people order them: one override over a list of cases that is frozen now.

What follows is the chore's work (`bulk_drive.py`): first a few, then the rest, never faster than agreed.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from caseward.cases.blocked import Frozen, blocked_groups, blocked_in, blocked_of
from caseward.cases.commands import field_errors
from caseward.cases.envelope import Envelope, said_before
from caseward.cases.locked import lock_case
from caseward.cases.looking_back import whole_situation
from caseward.db.session import database_now
from caseward.db.tables import BulkItem, BulkRun, Case
from caseward.documents.bulk import BulkGroup
from caseward.errors import ActionNotAllowed, BulkNotFound, InputInvalid, Reason
from caseward.overrides import OVERRIDES
from caseward.policy import Action, decide
from caseward.process import OPERATOR, SENIOR_OPERATOR, Catalogue
from caseward.situation import Actor

DEFAULT_RATE = 10  # cases a second where neither the order nor the partner says
NOT_IN_BULK = frozenset({"replay"})  # its plan is one case's own
PER_ITEM = frozenset({"reason", "step", "item"})  # what the input of an override has that the run itself fills in
MAX_ERRORS = 100  # named in one refusal
MAX_IN_WORDS = 5  # of those, in its sentence
# Reasons for which the actor could never be allowed, wherever the cases stand.
NEVER = frozenset({"role_missing", "skip_forbidden"})


@dataclass(frozen=True, kw_only=True)
class Group:
    """The blocked cases that are meant."""

    process: str
    step: str | None
    partner: str | None
    fingerprint: str
    until: datetime | None = None
    """Only those that were blocked by then: whoever orders has seen no others."""


@dataclass(frozen=True, kw_only=True)
class BulkOrder:
    """What somebody wants done in bulk."""

    override: str
    reason: str
    group: Group | None = None
    case_ids: tuple[UUID, ...] = ()
    """Of the group only these, as far as they are in it still; without a group whatever is blocked in them."""
    input: Mapping[str, Any] | None = None
    canary: int
    rate: int | None = None
    stop_after: int
    look: bool


async def order_bulk(session: AsyncSession, catalogue: Catalogue, *, order: BulkOrder, envelope: Envelope) -> UUID:
    """Freeze the list now, in order of age; answers the run's id, also of the same order sent before.

    Raises ActionNotAllowed, InputInvalid, IdempotencyKeyReused.
    """
    data = _content(order)
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).digest()
    twin = await said_before(session, envelope, digest)
    if twin is not None:
        return twin.id
    _check_role(envelope.actor)
    _check_input(order)
    frozen = await _freeze(session, catalogue, order, envelope.actor)
    await _check_could_be_allowed(session, catalogue, order.override, frozen, envelope.actor)
    partners = sorted({each.partner for each in frozen if each.partner is not None})
    limits = [catalogue.limits[name] for name in partners if name in catalogue.limits]
    rate = min([order.rate or min([DEFAULT_RATE, *limits]), *limits])
    now = await database_now(session)
    run = BulkRun(
        id=uuid7(),
        state="canary",
        override=order.override,
        input=dict(order.input or {}),
        reason=order.reason,
        actor_id=envelope.actor.id,
        actor_roles=sorted(envelope.actor.roles),
        wanted=_wanted(data["group"], order, frozen),
        named_of=[] if order.group else sorted({each.process for each in frozen}),
        canary=min(order.canary, len(frozen)),
        rate=rate,
        stop_after=order.stop_after,
        look=order.look,
        partners=partners,
        account=[],
        stopped_because=None,
        idempotency_key=envelope.idempotency_key,
        content_digest=digest,
        traceparent=envelope.traceparent,
        created_at=now,
        changed_at=now,
        finished_at=None,
    )
    note(run, now, envelope.actor.id, f"Ordered for {len(frozen)} cases.", order.reason)
    if order.rate is not None and rate < order.rate:
        note(run, now, "system", f"Limited to {rate} a second, which is what the partner takes.")
    session.add(run)
    await session.flush()  # the items need it, and there may be thousands, which go in by a statement of their own
    await session.execute(insert(BulkItem), [_item(run.id, number, each, now) for number, each in enumerate(frozen, 1)])
    return run.id


def _content(order: BulkOrder) -> dict[str, Any]:
    group = order.group
    return {
        "override": order.override,
        "reason": order.reason,
        "group": None
        if group is None
        else {
            "process": group.process,
            "step": group.step,
            "partner": group.partner,
            "fingerprint": group.fingerprint,
            **({"until": group.until.isoformat()} if group.until else {}),
        },
        "case_ids": [str(case_id) for case_id in order.case_ids],
        "input": dict(order.input or {}),
        "bounds": [order.canary, order.rate, order.stop_after, order.look],
    }


def _wanted(group: dict[str, Any] | None, order: BulkOrder, frozen: Sequence[Frozen]) -> dict[str, Any] | None:
    """The group as it is stored; where only some of its cases were chosen, with how many."""
    if group is None or not order.case_ids:
        return group
    return {**group, "chosen": {"cases": len(set(order.case_ids)), "gone": gone(order.case_ids, frozen)}}


def nothing_blocked(chosen: Collection[UUID]) -> ActionNotAllowed:
    """The refusal of an order over nothing: no case is blocked like that, or none of the chosen ones."""
    who = "None of the chosen cases" if chosen else "No case"
    return ActionNotAllowed([Reason("nothing_blocked", f"{who} is blocked like that now.")])


def gone(chosen: Collection[UUID], found: Sequence[Frozen]) -> int:
    """How many of the chosen cases are no longer blocked as they were seen."""
    return len(set(chosen) - {each.case_id for each in found})


def _check_role(actor: Actor) -> None:
    if not actor.roles & {OPERATOR, SENIOR_OPERATOR}:
        raise ActionNotAllowed([Reason("role_missing", "Only an operator or senior operator may.")])


def _check_input(order: BulkOrder) -> None:
    """See that every case's override would be well-formed. Raises InputInvalid."""
    override = OVERRIDES.get(order.override)
    if override is None or override.name in NOT_IN_BULK:
        message = f"There is no override {order.override} in bulk."
        raise InputInvalid(message, errors=[{"field": "override", "message": message}])
    given = dict(order.input or {})
    twice = sorted(set(given) & PER_ITEM)
    if twice:
        errors = [{"field": f"input.{name}", "message": "The run fills it in for each case."} for name in twice]
        raise InputInvalid("The input says what the run itself says.", errors=errors)
    try:
        override.input.model_validate({**given, "reason": order.reason})
    except ValidationError as fault:
        raise InputInvalid("The input is wrong.", errors=field_errors(fault, ("input",))) from fault


async def _freeze(session: AsyncSession, catalogue: Catalogue, order: BulkOrder, actor: Actor) -> list[Frozen]:
    if order.group is not None:
        group = await find_group(session, catalogue, order.group, actor=actor, only=order.case_ids)
        frozen = await blocked_in(session, group, until=order.group.until, only=order.case_ids)
    else:
        await _check_ids(session, catalogue, order.case_ids, actor=actor)
        frozen = await blocked_of(session, order.case_ids)
    if not OVERRIDES[order.override].per_step:  # once for each case, whatever blocks there
        frozen = list({each.case_id: each for each in reversed(frozen)}.values())[::-1]
    if not frozen:
        raise nothing_blocked(order.case_ids)
    return frozen


async def _check_ids(
    session: AsyncSession, catalogue: Catalogue, case_ids: Collection[UUID], *, actor: Actor, process: str | None = None
) -> None:
    """See that each is a case that this actor may see, of this process where one is said. Raises InputInvalid.

    No case becomes wrong by moving on: it keeps its id and its process.
    """
    visible = [name for name, declared in catalogue.items() if declared.visible_to(actor.roles)]
    rows = await session.execute(select(Case.id, Case.process).where(Case.id.in_(case_ids), Case.process.in_(visible)))
    known = {row.id: row.process for row in rows}
    wrong = [
        f"The case {each} is of another process." if each in known else f"No case has the id {each} here."
        for each in case_ids
        if each not in known or process not in {None, known[each]}
    ]
    if wrong:
        errors = [{"field": "case_ids", "message": message} for message in wrong[:MAX_ERRORS]]
        more = f" {len(wrong) - MAX_IN_WORDS} more can't be meant either." if len(wrong) > MAX_IN_WORDS else ""
        raise InputInvalid(" ".join(wrong[:MAX_IN_WORDS]) + more, errors=errors)


async def find_group(
    session: AsyncSession, catalogue: Catalogue, wanted: Group, *, actor: Actor, only: Collection[UUID] = ()
) -> BulkGroup:
    """The group that is meant, or `only` these of it, as it stands now.

    Raises ActionNotAllowed where it is empty, InputInvalid where one of these is a case that can't be in it.
    """
    if only:
        await _check_ids(session, catalogue, only, actor=actor, process=wanted.process)
    within: dict[str, Any] = {"process": wanted.process, "until": wanted.until, "only": only}
    found = await blocked_groups(session, catalogue, actor=actor, **within)
    named = (wanted.step, wanted.partner, wanted.fingerprint)
    for group in found.groups:
        if (group.step, group.partner, group.fingerprint) == named:
            return group
    raise nothing_blocked(only)


async def _check_could_be_allowed(
    session: AsyncSession, catalogue: Catalogue, override: str, frozen: Sequence[Frozen], actor: Actor
) -> None:
    """Refuse at once what the policy would refuse in every case; all else it decides at each case's turn."""
    samples = {(each.process, each.step): each for each in reversed(frozen)}
    reasons: list[Reason] = []
    for sample in sorted(samples.values(), key=lambda each: each.case_id):  # in one order, as they are locked
        work = await lock_case(session, catalogue, sample.case_id)
        action = Action("override", override, sample.step, sample.item)
        decision = decide(await whole_situation(work), actor, action)
        if not any(reason.code in NEVER for reason in decision.reasons):
            return
        reasons = reasons or [reason for reason in decision.reasons if reason.code in NEVER]
    raise ActionNotAllowed(reasons)


def _item(bulk_id: UUID, number: int, frozen: Frozen, now: datetime) -> dict[str, Any]:
    return {
        "bulk_id": bulk_id,
        "number": number,
        "case_id": frozen.case_id,
        "effect_key": frozen.effect_key,
        "step": frozen.step,
        "item": frozen.item,
        "partner": frozen.partner,
        "fingerprint": frozen.fingerprint,
        "state": "frozen",
        "operation_id": None,
        "outcome": None,
        "begun_at": None,
        "answered_at": None,
        "changed_at": now,
    }


def note(run: BulkRun, at: datetime, by: str, what: str, reason: str | None = None) -> None:
    """Write a line into the run's own account."""
    run.account = [*run.account, {"at": at.isoformat(), "by": by, "what": what, "reason": reason}]
    run.changed_at = at


async def continue_bulk(session: AsyncSession, *, bulk_id: UUID, actor: Actor, reason: str) -> None:
    """Go on after somebody looked at the first few; doing it twice does it once. Raises what `stop_bulk` raises."""
    _check_role(actor)
    run = await _locked_run(session, bulk_id)
    if run.state == "ramping":
        return
    if run.state != "looking":
        raise ActionNotAllowed([Reason("not_looking", f"The run is {run.state}; nobody has to say go on.")])
    run.state = "ramping"
    note(run, await database_now(session), actor.id, "Looked at the first ones and let it go on.", reason)


async def stop_bulk(session: AsyncSession, *, bulk_id: UUID, actor: Actor, reason: str) -> None:
    """Leave the rest as it is; what was sent gets its outcome. Raises ActionNotAllowed, BulkNotFound."""
    _check_role(actor)
    run = await _locked_run(session, bulk_id)
    if run.state == "stopped":
        return
    if run.state == "completed":
        raise ActionNotAllowed([Reason("bulk_completed", "The run is completed.")])
    await stop_run(session, run, await database_now(session), by=actor.id, because=reason)


async def _locked_run(session: AsyncSession, bulk_id: UUID) -> BulkRun:
    run = await session.get(BulkRun, bulk_id, with_for_update=True)
    if run is None:
        raise BulkNotFound
    return run


async def stop_run(session: AsyncSession, run: BulkRun, now: datetime, *, by: str, because: str) -> None:
    """Leave what was not sent yet; the rest is waited for."""
    run.state, run.stopped_because = "stopped", because
    note(run, now, by, "Stopped.", because)
    await session.execute(
        update(BulkItem)
        .where(BulkItem.bulk_id == run.id, BulkItem.state.in_(("frozen", "begun")))
        .values(state="left", changed_at=now)
        .execution_options(synchronize_session=False)
    )
