"""What waits for the confirmation of others, and their answers."""

from datetime import datetime
from typing import Any
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document, ReasonDocument, reason_documents
from caseward.policy import Action, Decision, action_title, decide_confirming, decide_declining, missing_groups, stale
from caseward.situation import Actor, Given, ProposalView, Situation


class GivenDocument(Document):
    """Somebody's answer to a proposal."""

    actor: ActorDocument
    reason: str | None
    at: datetime


class ProposedAction(Document):
    """What a proposal wants."""

    kind: str
    name: str
    step: str | None
    item: str | None


class AnswerDocument(Document):
    """Whether this actor may confirm, or decline, a proposal, and why not."""

    allowed: bool
    reasons: list[ReasonDocument]
    method: str
    href: str


class ProposalDocument(Document):
    """An operation that waits for confirmation."""

    operation_id: UUID
    action: ProposedAction
    title: str
    proposer: ActorDocument
    reason: str | None
    input: dict[str, Any]
    needed: int
    """So many different people must confirm it."""
    roles: list[str]
    """Who may."""
    missing: list[str]
    """Those of the roles without which it is not enough, and in which nobody has confirmed yet."""
    given: list[GivenDocument]
    proposed_at: datetime
    expires_at: datetime
    stale: bool
    """The case has moved on since: nobody can confirm it any more, propose it again."""
    confirm: AnswerDocument
    decline: AnswerDocument
    href: str


def proposal_document(now: Situation, proposal: ProposalView, actor: Actor) -> ProposalDocument:
    """What is proposed, and whether this actor may answer it."""
    proposer, href = proposal.proposer, f"/v1/operations/{proposal.id}"
    action = Action(proposal.kind, proposal.name, proposal.step, proposal.item)
    role = min(proposer.roles, default=None)
    return ProposalDocument(
        operation_id=proposal.id,
        action=ProposedAction(kind=action.kind, name=action.name, step=action.step, item=action.item),
        title=action_title(now.process, action),
        proposer=ActorDocument(id=proposer.id, role=role, via=proposer.via, on_behalf_of=proposer.on_behalf_of(role)),
        reason=proposal.reason,
        input=dict(proposal.input),
        needed=proposal.confirmation.by,
        roles=sorted(proposal.confirmation.roles),
        missing=sorted(missing_groups(proposal.confirmation, proposal.given)),
        given=[given_document(given) for given in proposal.given],
        proposed_at=proposal.proposed_at,
        expires_at=proposal.expires_at,
        stale=stale(now, proposal),
        confirm=_answer(decide_confirming(now, actor, proposal), f"{href}/confirm"),
        decline=_answer(decide_declining(now, actor, proposal), f"{href}/decline"),
        href=href,
    )


def given_document(given: Given) -> GivenDocument:
    """Somebody's answer."""
    actor = ActorDocument(id=given.actor_id, role=given.role, via=given.via, on_behalf_of=given.on_behalf_of)
    return GivenDocument(actor=actor, reason=given.reason, at=given.at)


def _answer(decision: Decision, href: str) -> AnswerDocument:
    return AnswerDocument(allowed=decision.allowed, reasons=reason_documents(decision), method="POST", href=href)
