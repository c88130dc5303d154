"""Proposing: what others must confirm is written down as an operation that blocks nothing and takes nothing over."""

from caseward.cases.attached import what_it_saw
from caseward.cases.locked import LockedCase
from caseward.cases.operations import Request, action_title, new_operation
from caseward.cases.proposals import Proposed, content_of, end_proposal, packed, proposals_of
from caseward.db.tables import Operation, ProposalAnswer
from caseward.policy import Action, bound_to, confirming_role, counts
from caseward.process import Confirmation
from caseward.situation import EffectView


async def propose(
    work: LockedCase, action: Action, target: EffectView | None, confirmation: Confirmation, request: Request
) -> Operation:
    """Propose an action that the policy allowed. The case's version rises; its workflow has nothing to hear."""
    operation = new_operation(
        request,
        case_id=work.case.id,
        process=work.case.process,
        kind=action.kind,
        name=action.name,
        case_state=work.case.state,
        at=work.now,
        from_state=work.case.state,
        fence=work.case.fence,
        subject_revision=work.case.subject_revision,
    )
    operation.state = "proposed"
    operation.step, operation.item = (target.address, target.item) if target else (None, None)
    operation.effect_key = target.key if target else None
    expires_at = work.now + confirmation.expires
    operation.confirmations, operation.expires_at = confirmation.by, expires_at
    operation.proposal = packed(
        Proposed(
            bound=bound_to(work.situation(), target),
            confirmation=confirmation,
            content=content_of(operation.input, operation.reason),
            at=work.now,
        )
    )
    await _replace_stale(work, operation)
    work.session.add(operation)
    work.case.proposals += 1
    own = counts(confirmation, request.actor)
    if own:
        _count_proposer(work, operation, confirmation, request)
    work.entry(
        "operation.proposed",
        operation=operation,
        actor=request.actor,
        role=request.role,
        reason=request.reason,
        effect=work.effects[target.key] if target else None,
        action=action_title(work, operation),
        step=operation.step,
        given=int(own),
        needed=confirmation.by,
        expires_at=expires_at.isoformat(),
        input=operation.input,
        **await what_it_saw(work, operation.subject_revision),
    )
    work.touch()
    return operation


async def _replace_stale(work: LockedCase, operation: Operation) -> None:
    """An equal one still stands only where nobody can confirm it any more, or the policy had refused this one."""
    found = await proposals_of(work.session, [work.case])
    for standing in found.get(work.case.id, ()):
        mine = (operation.kind, operation.name, operation.step, operation.item)
        if (standing.kind, standing.name, standing.step, standing.item) == mine:
            replaced = await work.session.get_one(Operation, standing.id)
            end_proposal(work, replaced, "declined", reason="The case had moved on, and it was proposed again.")


def _count_proposer(work: LockedCase, operation: Operation, confirmation: Confirmation, request: Request) -> None:
    role = confirming_role(request.actor, confirmation)
    work.session.add(
        ProposalAnswer(
            operation_id=operation.id,
            number=1,
            case_id=work.case.id,
            answer="confirmed",
            actor_id=request.actor.id,
            actor_role=role,
            on_behalf_of=request.actor.on_behalf_of(role),
            actor_via=request.actor.via,
            reason=request.reason,
            at=work.now,
            idempotency_key=None,  # it is the proposal's own
            content_digest=None,
        )
    )
