"""A case: where it stands, what happens to it, and what may be done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document, ReasonDocument, reason_documents
from caseward.documents.proposal import ProposalDocument, proposal_document
from caseward.documents.steps import StepDocument
from caseward.policy import Action, Decision, action_title, decide_all
from caseward.process import hyphenated
from caseward.situation import Actor, Condition, Situation, condition


class StateInfo(Document):
    """The state as the process explains it."""

    title: str
    meaning: str
    final: bool
    since: datetime
    deadline_at: datetime | None


class ConditionInfo(Document):
    """What is happening, why, and who decides."""

    sentence: str
    since: datetime
    step: str | None = None
    item: str | None = None
    cause: str | None = None
    recovery_owner: str | None = None
    waiting_on: str | None = None
    last_error: dict[str, Any] | None = None
    attempts: int | None = None
    next_attempt_at: datetime | None = None
    deadline_at: datetime | None = None
    fingerprint: str | None = None
    by: str | None = None
    reason: str | None = None


class OperationInFlight(Document):
    """The operation in flight, as the case document shows it."""

    operation_id: UUID
    kind: str
    name: str
    state: str
    href: str
    steps: list[StepDocument]


class ActionDocument(Document):
    """A transition or an override, with whether this actor may take it now and why not."""

    kind: str
    name: str
    step: str | None
    item: str | None
    title: str
    allowed: bool
    reasons: list[ReasonDocument]
    confirmations: int
    method: str
    href: str
    input_schema: str


class LatestOperation(Document):
    """What led to where a case stands: who did what, when and why."""

    operation_id: UUID
    kind: str
    name: str
    title: str
    actor: ActorDocument
    reason: str | None
    input: dict[str, Any]
    finished_at: datetime
    href: str


class CaseDocument(Document):
    """A case as everybody sees it."""

    case_id: UUID
    process: str
    business_key: str
    title: str
    version: int
    etag: str
    """The version and the numbers of the pauses that apply: what `If-Match` takes."""
    state: str
    state_info: StateInfo
    condition: str
    condition_info: ConditionInfo
    assignee: str | None
    """Who has claimed it."""
    subject: dict[str, Any]
    subject_revision: int
    operation: OperationInFlight | None
    latest: LatestOperation | None
    """What stands: an undo would take it back, and a replay that came back to where the case was does not replace it.
    None while an operation is in flight."""
    proposals: list[ProposalDocument]
    actions: list[ActionDocument]
    opened_at: datetime
    changed_at: datetime


class CaseRow(Document):
    """A case in a list."""

    case_id: UUID
    process: str
    business_key: str
    title: str
    version: int
    state: str
    state_title: str
    condition: str
    condition_since: datetime
    recovery_owner: str | None
    waiting_on: str | None
    assignee: str | None
    deadline_at: datetime | None
    proposals: int
    """How many operations wait for confirmation."""
    opened_at: datetime
    changed_at: datetime
    href: str


class CaseList(Document):
    """A page of cases, newest change first; `next` is the address of the following one."""

    cases: list[CaseRow]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """What the case row says beyond its situation."""

    business_key: str
    title: str
    subject: Mapping[str, Any]
    subject_revision: int
    opened_at: datetime
    changed_at: datetime
    latest: LatestOperation | None = None


def case_document(now: Situation, facts: CaseFacts, actor: Actor | None, steps: Sequence[StepDocument]) -> CaseDocument:
    """The case as this actor sees it; without actions where there is no actor."""
    state = now.process.state(now.state)
    current = condition(now)
    return CaseDocument(
        case_id=now.case_id,
        process=now.process.name,
        business_key=facts.business_key,
        title=facts.title,
        version=now.version,
        etag=now.etag,
        state=now.state,
        state_info=StateInfo(
            title=state.title,
            meaning=state.meaning,
            final=state.final,
            since=now.state_since,
            deadline_at=now.deadline_at,
        ),
        condition=current.name,
        condition_info=condition_info(current),
        assignee=now.assignee,
        subject=dict(facts.subject),
        subject_revision=facts.subject_revision,
        operation=_in_flight(now, steps),
        latest=facts.latest,
        proposals=[proposal_document(now, proposal, actor) for proposal in now.proposals] if actor else [],
        actions=[_action(now, action, decision) for action, decision in decide_all(now, actor)] if actor else [],
        opened_at=facts.opened_at,
        changed_at=facts.changed_at,
    )


def condition_info(current: Condition) -> ConditionInfo:
    """What is happening, as a document."""
    return ConditionInfo(
        sentence=current.sentence,
        since=current.since,
        step=current.step,
        item=current.item,
        cause=current.cause,
        recovery_owner=current.recovery_owner,
        waiting_on=current.waiting_on,
        last_error=dict(current.last_error) if current.last_error else None,
        attempts=current.attempts,
        next_attempt_at=current.next_attempt_at,
        deadline_at=current.deadline_at,
        fingerprint=current.fingerprint,
        by=current.by,
        reason=current.reason,
    )


def status_document(now: Situation, facts: CaseFacts, steps: Sequence[StepDocument]) -> dict[str, Any]:
    """The case document as Temporal may hold it: no subject, title, people, actions, proposals, partners' words."""
    bare = [step.model_copy(update={"result": None}) for step in steps]
    told = case_document(now, facts, None, bare)
    # Proposals quote people, and the workflow hears nothing of them before they are accepted.
    document = told.model_dump(mode="json", exclude={"subject", "title", "assignee", "latest", "actions", "proposals"})
    document["condition_info"] |= {"by": None, "reason": None}
    last_error = document["condition_info"]["last_error"]
    if last_error:
        last_error.pop("message", None)
    return document


def _in_flight(now: Situation, steps: Sequence[StepDocument]) -> OperationInFlight | None:
    if now.operation is None:
        return None
    return OperationInFlight(
        operation_id=now.operation.id,
        kind=now.operation.kind,
        name=now.operation.name,
        state=now.operation.state,
        href=f"/v1/operations/{now.operation.id}",
        steps=list(steps),
    )


def _action(now: Situation, action: Action, decision: Decision) -> ActionDocument:
    if action.kind == "transition":
        href = f"/v1/{now.process.path}/{now.case_id}/{hyphenated(action.name)}"
        schema = f"/v1/schemas/{now.process.name}.{action.name}"
    elif action.kind == "claim":
        href, schema = f"/v1/cases/{now.case_id}/{action.name}", "/v1/schemas/claim"
    else:
        href = f"/v1/cases/{now.case_id}/overrides/{hyphenated(action.name)}"
        schema = f"/v1/schemas/override.{action.name}"
    return ActionDocument(
        kind=action.kind,
        name=action.name,
        step=action.step,
        item=action.item,
        title=action_title(now.process, action),
        allowed=decision.allowed,
        reasons=reason_documents(decision),
        confirmations=decision.further,
        method="POST",
        href=href,
        input_schema=schema,
    )
