"""Commands: one transaction each, policy first, outbox last. Every door leads here."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from caseward.cases import outcomes, pauses
from caseward.cases.envelope import Envelope, OfBulk, digest_of, lock_text, said_before
from caseward.cases.locked import LockedCase, effect_view, lock_case
from caseward.cases.looking_back import whole_situation
from caseward.cases.operations import (
    Request,
    accept_force_cancel,
    accept_transition,
    accept_undo,
    new_operation,
)
from caseward.cases.proposals import end_proposals
from caseward.cases.proposing import propose
from caseward.cases.replay import accept_replay, planned_as_shown
from caseward.claims import ClaimInput
from caseward.db.tables import Case, Effect, Operation, Subject
from caseward.errors import (
    ActionNotAllowed,
    BusinessKeyTaken,
    CaseNotFound,
    InputInvalid,
    Reason,
    VersionStale,
)
from caseward.evidence import GENESIS
from caseward.overrides import OVERRIDES
from caseward.policy import Action, Decision, decide, decide_opening
from caseward.process import Catalogue, Confirmation, Nothing, Process, Transition
from caseward.situation import Actor, EffectView, Kind, Situation, story_fingerprint


@dataclass(frozen=True)
class Accepted:
    """The operation that a command became, now or when the same command came before."""

    operation_id: UUID
    case_id: UUID
    repeated: bool = False
    proposed: bool = False
    """It waits for confirmation."""


async def open_case(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    process: str,
    business_key: str,
    subject: BaseModel,
    envelope: Envelope,
) -> Accepted:
    """Open a case by the process's opening transition.

    Raises ActionNotAllowed, BusinessKeyTaken, IdempotencyKeyReused.
    """
    declared = catalogue[process]
    data = as_stored(subject)
    digest = digest_of("open", process, business_key, data)
    twin = await find_twin(session, envelope, digest)
    if twin is not None:
        return twin
    now, pause = (await session.execute(pauses.PROCESS_PAUSE, {"process": pauses.process_key(process)})).one()
    decision = decide_opening(declared, envelope.actor, pauses.opening_views(pause))
    if not decision.allowed:
        raise ActionNotAllowed(decision.reasons, state=None, version=None)
    await _claim_business_key(session, process, business_key)
    transition = declared.opening
    first_state = transition.pending or transition.targets[0]
    case = _new_case(declared, business_key, subject, now, state=first_state)
    session.add(case)
    session.add(Subject(case_id=case.id, revision=1, data=data))
    work = LockedCase(session=session, process=declared, case=case, now=now, operation=None, effects={})
    operation = new_operation(
        _request(envelope, decision, digest, None, {}),
        case_id=case.id,
        process=process,
        kind="transition",
        name=transition.name,
        case_state=first_state,
        at=now,
    )
    session.add(operation)
    work.entry(
        "case.opened",
        operation=operation,
        actor=envelope.actor,
        role=decision.role,
        title=case.title,
        business_key=business_key,
    )
    work.enter(first_state, subject)
    case.latest_id = operation.id
    if transition.steps:
        work.operation, case.operation_id = operation, operation.id
    else:
        operation.state, operation.to_state = "completed", first_state
        operation.started_at = operation.finished_at = now
    work.touch()
    work.promise(operation)
    return Accepted(operation.id, case.id)


def _new_case(process: Process, business_key: str, subject: BaseModel, now: Any, *, state: str) -> Case:
    return Case(
        id=uuid7(),
        process=process.name,
        business_key=business_key,
        title=process.headline(subject),
        state=state,
        state_since=now,
        visit=1,
        final=False,
        version=0,
        fence=1,
        subject_revision=1,
        operation_id=None,
        latest_id=None,
        deadline_at=None,
        escalated_to=None,
        condition="queued",
        condition_since=now,
        recovery_owner=None,
        waiting_on=None,
        timeline_number=0,
        timeline_head=GENESIS,
        opened_at=now,
        changed_at=now,
        paused=None,
        proposals=0,
        overdue=None,
        thawed=None,
        assignee=None,
        documents=None,
    )


async def request_transition(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    process: str,
    case_id: UUID,
    transition: str,
    input: BaseModel,  # noqa: A002 - the word of the contract
    reason: str | None,
    envelope: Envelope,
) -> Accepted:
    """Accept a transition.

    Raises CaseNotFound, VersionStale, ActionNotAllowed, InputInvalid, BusinessKeyTaken, IdempotencyKeyReused.
    """
    data = as_stored(input)
    digest = digest_of(process, str(case_id), transition, data, reason)
    twin = await find_twin(session, envelope, digest)
    if twin is not None:
        return twin
    work = await lock_case(session, catalogue, case_id, process=process)
    action = Action("transition", transition)
    decision = await _admit(work, envelope, action)
    return await _enact(work, action, decision, _request(envelope, decision, digest, reason, data), data)


async def request_override(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    case_id: UUID,
    override: str,
    input: BaseModel,  # noqa: A002 - the word of the contract
    envelope: Envelope,
) -> Accepted:
    """Accept an override. Raises what `request_transition` raises."""
    data = as_stored(input)
    digest = digest_of("override", str(case_id), override, data)
    twin = await find_twin(session, envelope, digest)
    if twin is not None:
        return twin
    work = await lock_case(session, catalogue, case_id)
    action = Action("override", override, data.get("step"), data.get("item"))
    decision = await _admit(work, envelope, action)
    request = _request(envelope, decision, digest, data["reason"], {k: v for k, v in data.items() if k != "reason"})
    return await _enact(work, action, decision, request, data)


async def request_claim(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    case_id: UUID,
    claim: str,
    input: ClaimInput,  # noqa: A002 - the word of the contract
    envelope: Envelope,
) -> Accepted:
    """Claim a case for the actor, or end a claim; done in this transaction, and the workflow has nothing to hear.

    Raises CaseNotFound, VersionStale, ActionNotAllowed, IdempotencyKeyReused.
    """
    digest = digest_of("claim", str(case_id), claim, as_stored(input))
    twin = await find_twin(session, envelope, digest)
    if twin is not None:
        return twin
    work = await lock_case(session, catalogue, case_id)
    decision = await _admit(work, envelope, Action("claim", claim))
    request = _request(envelope, decision, digest, input.reason, {})
    operation = _standing_by(work, request, "claim", claim)
    operation.state, operation.to_state = "completed", work.case.state
    operation.started_at = operation.finished_at = work.now
    work.entry(
        "case.claimed" if claim == "claim" else "case.unclaimed",
        operation=operation,
        actor=envelope.actor,
        role=decision.role,
        reason=input.reason,
        assignee=work.case.assignee or envelope.actor.id,
    )
    work.case.assignee = envelope.actor.id if claim == "claim" else None
    work.touch()
    return Accepted(operation.id, work.case.id)


async def _enact(
    work: LockedCase, action: Action, decision: Decision, request: Request, data: dict[str, Any]
) -> Accepted:
    """Accept what the policy allowed; or propose it, where others must confirm it first."""
    if decision.confirmation is not None:
        operation = await _propose(work, action, decision, decision.confirmation, request, data)
        return Accepted(operation.id, work.case.id, proposed=True)
    return Accepted((await carry_out(work, action, decision.target, request, data)).id, work.case.id)


async def carry_out(
    work: LockedCase, action: Action, target: EffectView | None, request: Request, data: dict[str, Any]
) -> Operation:
    """Accept an action that the policy allowed and enough people confirmed; there is no other way to.

    Raises InputInvalid, ActionNotAllowed for a plan that is stale, BusinessKeyTaken.
    """
    if action.kind == "transition":
        transition = _declared(work.process, action.name)
        revised = await _revised(work, transition, data)
        if work.case.final:  # a reopening wants the business key back
            await _claim_business_key(work.session, work.case.process, work.case.business_key)
        return await accept_transition(work, transition, request, subject=revised)
    if action.name in {"pause", "resume"}:
        return await _hold(work, action.name, request, data)
    if OVERRIDES[action.name].per_step:
        return await _help(work, action.name, target, request, data)
    if action.name == "force_cancel":
        return await accept_force_cancel(work, request)
    if action.name == "replay":
        return await accept_replay(work, data["step"], data["plan_hash"], request)
    undone = work.operation or await work.session.get_one(Operation, work.case.latest_id)
    if work.case.final:
        await _claim_business_key(work.session, work.case.process, work.case.business_key)
    return await accept_undo(work, undone, request)


async def _propose(
    work: LockedCase,
    action: Action,
    decision: Decision,
    confirmation: Confirmation,
    request: Request,
    data: dict[str, Any],
) -> Operation:
    """Propose it. Input that could never be accepted is refused already now, before anybody confirms it."""
    if action.kind == "transition":
        await _revised(work, _declared(work.process, action.name), data)
    elif OVERRIDES[action.name].per_step:
        _check_step_input(work.process, action.name, decision.target, data)
    elif action.name == "replay":
        await planned_as_shown(work, data["step"], data["plan_hash"])
    return await propose(work, action, decision.target, confirmation, request)


def _declared(process: Process, name: str) -> Transition:
    transition = process.transition(name)
    if transition is None:
        raise CaseNotFound
    return transition


async def _revised(work: LockedCase, transition: Transition, data: dict[str, Any]) -> dict[str, Any] | None:
    """The subject's next revision, if the transition makes one."""
    if transition.revise is None:
        return None
    current = await work.session.get_one(Subject, (work.case.id, work.case.subject_revision))
    subject = work.process.subject.model_validate(current.data)
    return as_stored(transition.revise(subject, transition.input.model_validate(data)))


def _standing_by(work: LockedCase, request: Request, kind: Kind, name: str) -> Operation:
    """An operation that takes nothing over: it stands by the one in flight, where there is one."""
    operation = new_operation(
        request,
        case_id=work.case.id,
        process=work.case.process,
        kind=kind,
        name=name,
        case_state=work.case.state,
        at=work.now,
        from_state=work.case.state,
        fence=work.case.fence,
        subject_revision=work.case.subject_revision,
    )
    operation.acts_on = work.case.operation_id
    work.session.add(operation)
    return operation


async def _hold(work: LockedCase, override: str, request: Request, data: dict[str, Any]) -> Operation:
    """Pause the case or end its pause: all of it in this transaction."""
    operation = _standing_by(work, request, "override", override)
    state_title = work.process.state(work.case.state).title
    work.entry(
        "operation.accepted",
        operation=operation,
        actor=request.actor,
        role=request.role,
        reason=request.reason,
        action=OVERRIDES[override].title,
        from_state=state_title,
        case_state=state_title,
        input=operation.input,
    )
    by: dict[str, Any] = {"actor": request.actor, "role": request.role, "reason": data["reason"]}
    woken: list[Effect] = []
    if override == "pause":
        pauses.pause_case(work, deadlines=data["deadlines"], operation=operation, **by)
    else:
        looked = await whole_situation(work)
        woken = pauses.resume_case(work, operation=operation, others=looked.pauses[1:], **by)
    work.finish_helper(operation)
    work.touch()
    pauses.tell(work, woken, operation)
    return operation


async def _help(
    work: LockedCase, override: str, target: EffectView | None, request: Request, data: dict[str, Any]
) -> Operation:
    """Accept retry, skip or mark_done: the change is written now, and the operation ends when its effect shows."""
    effect = work.effects[target.key] if target else None
    result = _check_step_input(work.process, override, target, data)
    operation = _standing_by(work, request, "override", override)
    if target is not None:
        operation.step, operation.item, operation.effect_key = target.address, target.item, target.key
    state_title = work.process.state(work.case.state).title
    work.entry(
        "operation.accepted",
        operation=operation,
        actor=request.actor,
        role=request.role,
        reason=request.reason,
        effect=effect,
        action=OVERRIDES[override].title,
        from_state=state_title,
        case_state=state_title,
        input=operation.input,
    )
    if effect is None:
        if work.operation is not None:
            work.operation.blocked = None
        work.give_time_again()
        work.finish_helper(operation)
    else:
        because = f"{OVERRIDES[override].title}: somebody else decided on the step."
        await end_proposals(work, because, keep=operation, effect_key=effect.key)
        if effect.outcome == "unknown" and data.get("happened") is False:
            outcomes.rule_out(work, effect, operation)
        if override == "retry":
            outcomes.retry_now(work, effect, operation)
        elif override == "skip":
            outcomes.leave_out(work, effect, operation)
        else:
            outcomes.mark_done(work, effect, operation, result)
    work.touch()
    work.promise(operation)
    return operation


def _check_step_input(
    process: Process, override: str, target: EffectView | None, data: dict[str, Any]
) -> dict[str, Any]:
    """Check what only fits this very effect; returns the result of a `mark_done`. Raises InputInvalid."""
    if override == "mark_done" and target is not None:
        step = process.steps.get(target.step)
        if step is None and target.direction == "do":
            return data["result"]  # declared no more: there is nothing to check it against
        model = Nothing if step is None or target.direction == "undo" else step.result
        try:
            return as_stored(model.model_validate(data["result"]))
        except ValidationError as fault:
            raise InputInvalid(
                "The result does not fit the step's result type.", errors=field_errors(fault, ("result",))
            ) from fault
    happened = data.get("happened")
    if happened is True:
        message = "To state that it happened, mark it as done."
        raise InputInvalid(message, errors=[{"field": "happened", "message": message}])
    undecided = target is not None and target.outcome == "unknown" and not target.ruled_out
    if target and undecided and happened is None and (override == "skip" or target.cause == "unknown"):
        message = "Nobody knows whether it happened. Say `happened: false`, or mark it as done."
        raise InputInvalid(message, errors=[{"field": "happened", "message": message}])
    return {}


async def refuse(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    case_id: UUID,
    actor: Actor,
    override: str,
    message: str,
    claimed_by: str,
) -> None:
    """Keep a refusal that nobody else would see: one that came by a signal."""
    work = await lock_case(session, catalogue, case_id)
    work.entry("override.refused", actor=actor, override=override, message=message, claimed_by=claimed_by)
    work.touch()


async def _admit(work: LockedCase, envelope: Envelope, action: Action) -> Decision:
    """See that the case is one of the actor's, that it is the expected version, and that the policy allows it."""
    if not work.process.visible_to(envelope.actor.roles):
        raise CaseNotFound
    now = await whole_situation(work, envelope.actor if action.name == "replay" else None)
    check_version(work, envelope, now)
    if envelope.bulk is not None and not _still_as_frozen(work, envelope.bulk):
        raise ActionNotAllowed([MOVED], state=work.case.state, version=work.case.version)
    decision = decide(now, envelope.actor, action)
    if not decision.allowed:
        raise ActionNotAllowed(decision.reasons, state=work.case.state, version=work.case.version)
    return decision


def check_version(work: LockedCase, envelope: Envelope, now: Situation) -> None:
    """Raises VersionStale where the case has none of the versions that the sender saw."""
    version, wanted = work.case.version, envelope.if_match
    if wanted is not None and version not in wanted and now.etag not in wanted:
        raise VersionStale("The case has changed since.", state=work.case.state, version=version, etag=now.etag)


MOVED = Reason("case_moved", "The case is no longer blocked as it was when the list was made.")


def _still_as_frozen(work: LockedCase, frozen: OfBulk) -> bool:
    if frozen.fingerprint is None:
        return True
    if frozen.effect_key is None:
        blocked = work.operation.blocked if work.operation else None
        return blocked is not None and story_fingerprint(blocked) == frozen.fingerprint
    driven = {effect.key: effect for effect in work.driven()}
    effect = driven.get(frozen.effect_key)
    return effect is not None and effect_view(effect).fingerprint == frozen.fingerprint


async def find_twin(session: AsyncSession, envelope: Envelope, digest: bytes) -> Accepted | None:
    """The operation of the same command sent before. Raises IdempotencyKeyReused."""
    twin = await said_before(session, envelope, digest)
    return Accepted(twin.id, twin.case_id, repeated=True) if twin is not None else None


async def _claim_business_key(session: AsyncSession, process: str, business_key: str) -> None:
    """Make sure that no open case has the key, and that none gets it before this transaction ends."""
    await lock_text(session, f"{process}\0{business_key}")
    holder = await session.scalar(
        select(Case.id).where(Case.process == process, Case.business_key == business_key, ~Case.final)
    )
    if holder is not None:
        raise BusinessKeyTaken(
            f"An open case has the business key {business_key}.",
            case_id=str(holder),
            href=f"/v1/cases/{holder}",
            reasons=[{"code": "business_key_taken", "message": "An open case has this business key."}],
        )


def _request(
    envelope: Envelope, decision: Decision, digest: bytes, reason: str | None, data: dict[str, Any]
) -> Request:
    return Request(
        actor=envelope.actor,
        role=decision.role,
        reason=reason,
        input=data,
        idempotency_key=envelope.idempotency_key,
        content_digest=digest,
        traceparent=envelope.traceparent,
        bulk_id=envelope.bulk.bulk_id if envelope.bulk else None,
    )


def as_stored(model: BaseModel) -> dict[str, Any]:
    """A model as JSON, the form in which it is kept."""
    return to_jsonable_python(model)


def field_errors(fault: ValidationError, prefix: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Each wrong field with what is wrong, without repeating what was sent."""
    return [
        {"field": ".".join(str(part) for part in (*prefix, *error["loc"])), "message": error["msg"]}
        for error in fault.errors(include_url=False, include_context=False, include_input=False)
    ]
