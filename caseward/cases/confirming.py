"""Confirming: people's answers to proposals. The last confirmation needed accepts, in its own transaction."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.attached import what_it_saw
from caseward.cases.commands import Accepted, carry_out, check_version, find_twin
from caseward.cases.envelope import Envelope, digest_of
from caseward.cases.locked import LockedCase, lock_case
from caseward.cases.looking_back import whole_situation
from caseward.cases.operations import Request, action_title
from caseward.cases.proposals import end_proposal
from caseward.db.session import Database
from caseward.db.tables import Operation, ProposalAnswer
from caseward.errors import ActionNotAllowed, CaseNotFound, OperationNotFound, Reason
from caseward.policy import Action, Decision, decide_confirming, decide_declining
from caseward.process import Catalogue
from caseward.situation import ProposalView, Situation

LOOK_FOR_EXPIRED = timedelta(seconds=1)  # as late as a proposal may expire
BATCH = 50  # cases; each is a transaction of its own, so that none waits for the others


async def confirm_proposal(
    session: AsyncSession, catalogue: Catalogue, *, operation_id: UUID, reason: str | None, envelope: Envelope
) -> Accepted:
    """Count the actor among those who confirmed; the last one needed accepts the operation.

    Raises OperationNotFound, VersionStale, ActionNotAllowed, BusinessKeyTaken, IdempotencyKeyReused.
    """
    digest = digest_of("confirm", str(operation_id), reason)
    twin = await find_twin(session, envelope, digest)
    if twin is not None:
        return twin
    work, operation, proposal, now = await _take_in_hand(session, catalogue, operation_id, envelope)
    decision = decide_confirming(now, envelope.actor, proposal)
    _refuse_unless_allowed(work, decision)
    _answer(work, operation, proposal, envelope, decision, digest, "confirmed", reason)
    # Whoever confirmed is one person, whatever row or role says so twice.
    people = {given.actor_id for given in proposal.given} | {envelope.actor.id}
    work.entry(
        "operation.confirmed",
        operation=operation,
        actor=envelope.actor,
        role=decision.role,
        reason=reason,
        action=action_title(work, operation),
        given=len(people),
        needed=proposal.confirmation.by,
        **await what_it_saw(work, operation.subject_revision),
    )
    if len(people) >= proposal.confirmation.by:
        await _accept(work, operation, proposal, decision)
    work.touch()
    return Accepted(operation.id, work.case.id)


async def decline_proposal(
    session: AsyncSession, catalogue: Catalogue, *, operation_id: UUID, reason: str, envelope: Envelope
) -> Accepted:
    """End the proposal. Raises OperationNotFound, VersionStale, ActionNotAllowed, IdempotencyKeyReused."""
    digest = digest_of("decline", str(operation_id), reason)
    twin = await find_twin(session, envelope, digest)
    if twin is not None:
        return twin
    work, operation, proposal, now = await _take_in_hand(session, catalogue, operation_id, envelope)
    decision = decide_declining(now, envelope.actor, proposal)
    _refuse_unless_allowed(work, decision)
    _answer(work, operation, proposal, envelope, decision, digest, "declined", reason)
    end_proposal(work, operation, "declined", actor=envelope.actor, role=decision.role, reason=reason)
    work.touch()
    return Accepted(operation.id, work.case.id)


async def _take_in_hand(
    session: AsyncSession, catalogue: Catalogue, operation_id: UUID, envelope: Envelope
) -> tuple[LockedCase, Operation, ProposalView, Situation]:
    case_id = await session.scalar(select(Operation.case_id).where(Operation.id == operation_id))
    if case_id is None:
        raise OperationNotFound
    try:
        work = await lock_case(session, catalogue, case_id)
    except CaseNotFound as fault:
        raise OperationNotFound from fault
    if not work.process.visible_to(envelope.actor.roles):
        raise OperationNotFound
    now = await whole_situation(work)
    check_version(work, envelope, now)
    operation = await session.get_one(Operation, operation_id)
    proposal = next((each for each in now.proposals if each.id == operation_id), None)
    if proposal is None:
        message = f"{action_title(work, operation)} is {operation.state}: there is nothing to confirm or decline."
        raise ActionNotAllowed([Reason("not_proposed", message)], state=work.case.state, version=work.case.version)
    return work, operation, proposal, now


def _refuse_unless_allowed(work: LockedCase, decision: Decision) -> None:
    if not decision.allowed:
        raise ActionNotAllowed(decision.reasons, state=work.case.state, version=work.case.version)


def _answer(
    work: LockedCase,
    operation: Operation,
    proposal: ProposalView,
    envelope: Envelope,
    decision: Decision,
    digest: bytes,
    answer: str,
    reason: str | None,
) -> None:
    work.session.add(
        ProposalAnswer(
            operation_id=operation.id,
            number=len(proposal.given) + 1,
            case_id=work.case.id,
            answer=answer,
            actor_id=envelope.actor.id,
            actor_role=decision.role,
            actor_via=envelope.actor.via,
            on_behalf_of=envelope.actor.on_behalf_of(decision.role),
            reason=reason,
            at=work.now,
            idempotency_key=envelope.idempotency_key,
            content_digest=digest,
        )
    )


async def _accept(work: LockedCase, operation: Operation, proposal: ProposalView, decision: Decision) -> None:
    """Accept what was proposed, in the name of whoever did, by the very functions that every command ends in."""
    request = Request(
        actor=proposal.proposer,
        role=operation.actor_role,
        reason=operation.reason,
        input=operation.input,
        idempotency_key=operation.idempotency_key,
        content_digest=operation.content_digest,
        traceparent=operation.traceparent,
        proposal=operation,
    )
    work.case.proposals -= 1
    action = Action(proposal.kind, proposal.name, proposal.step, proposal.item)
    data = operation.input if proposal.kind == "transition" else {**operation.input, "reason": operation.reason}
    await carry_out(work, action, decision.target, request, data)


async def expire_due(database: Database, catalogue: Catalogue) -> bool:
    """End the proposals whose time is over; True where more of them may be due at once.

    Whichever commits first counts: a proposal is confirmed until it was expired, because rules don't see the clock.
    """
    due = (Operation.state == "proposed", Operation.expires_at <= func.clock_timestamp())
    async with database.transaction() as session:
        found = await session.scalars(
            select(Operation.case_id)
            .where(*due, Operation.process.in_(list(catalogue)))
            .order_by(Operation.expires_at)
            .limit(BATCH)
        )
        cases = list(dict.fromkeys(found))
    faults: list[Exception] = []
    for case_id in cases:
        try:
            async with database.transaction() as session:
                work = await lock_case(session, catalogue, case_id)
                rows = await session.scalars(select(Operation).where(Operation.case_id == case_id, *due))
                expired = rows.all()
                for operation in expired:
                    end_proposal(work, operation, "expired")
                if expired:
                    work.touch()
        except Exception as fault:  # noqa: BLE001 - the others are due all the same
            faults.append(fault)
    if faults:
        message = "proposals that could not be expired"
        raise ExceptionGroup(message, faults)
    return len(cases) == BATCH
