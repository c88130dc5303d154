"""Every JSON document that leaves the engine: its shape, and its one builder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from caseward.entries import sentence
from caseward.policy import (
    Action,
    Decision,
    action_title,
    decide_all,
    decide_confirming,
    decide_declining,
    missing_groups,
    stale,
)
from caseward.process import Process, Step, hyphenated
from caseward.situation import (
    UNDO_SUFFIX,
    Actor,
    Condition,
    EffectView,
    Given,
    ProposalView,
    Situation,
    condition,
    step_title,
)


class Document(BaseModel):
    """The root of all documents: they may grow, clients ignore what they don't know."""

    model_config = ConfigDict(frozen=True)


class ReasonDocument(Document):
    """Why something is refused."""

    code: str
    message: str


class Problem(Document):
    """A problem document (RFC 9457) with a stable code."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    trace_id: str | None = None
    reasons: list[ReasonDocument] | None = None
    state: str | None = None
    version: int | None = None
    errors: list[dict[str, Any]] | None = None


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


class AttemptDocument(Document):
    """One try."""

    number: int
    outcome: str | None
    started_at: datetime
    ended_at: datetime | None
    error: dict[str, Any] | None


class StepDocument(Document):
    """One step of an operation, or the compensation of one."""

    name: str
    item: str | None
    title: str
    direction: str
    state: str
    outcome: str | None
    effect_key: str | None
    partner: str
    recovery_owner: str
    since: datetime | None
    result: dict[str, Any] | None
    next_attempt_at: datetime | None
    fingerprint: str | None = None
    attempts: list[AttemptDocument] | None = None


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


class ActorDocument(Document):
    """Who, in what capacity, through which door."""

    id: str
    role: str | None
    via: str
    on_behalf_of: str | None = None
    """The person for whom they stood in."""


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
    """The latest operation that took the case over; None while one is in flight."""
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


class Confirmations(Document):
    """How many confirming people are needed, and who has; all of it empty for what needed none."""

    needed: int = 0
    given: list[GivenDocument] = []
    declined: GivenDocument | None = None
    proposed_at: datetime | None = None
    expires_at: datetime | None = None


class OperationDocument(Document):
    """One operation, whole."""

    operation_id: UUID
    kind: str
    name: str
    case_id: UUID
    process: str
    state: str
    actor: ActorDocument
    reason: str | None
    input: dict[str, Any]
    from_state: str | None
    case_state: str
    to_state: str | None
    supersedes: UUID | None
    superseded_by: UUID | None
    acts_on: UUID | None
    step: str | None
    item: str | None
    confirmations: Confirmations
    plan: dict[str, Any] | None = None
    """Of a replay: what it reuses, offsets and runs, and which decisions it keeps."""
    recovery_owner: str | None
    blocked: dict[str, Any] | None
    steps: list[StepDocument]
    bulk_id: UUID | None = None
    accepted_at: datetime | None
    """None for what was only proposed."""
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class PlannedStep(Document):
    """What a replay does about one step."""

    step: str
    item: str | None = None
    title: str
    action: Literal["run", "reuse", "offset"]
    effect: str | None = None
    """The effect that is reused or offset."""
    stays: str | None = None
    """The effect of the same step that stays beside the new one, because nothing takes it back."""
    unknown: bool = False
    """Nobody knows yet whether it happened: finding out comes first, where somebody can be asked."""


class PlannedDecision(Document):
    """A decision of people that a replay meets. A transition's is kept while the story leads where it led before."""

    kind: str
    name: str
    title: str
    step: str | None = None
    operation_id: UUID | None = None
    actor: str | None = None
    kept: bool


class ReplayPlan(Document):
    """What a replay would do, in the order in which it would; it changes nothing."""

    case_id: UUID
    version: int
    fence: int
    operation_id: UUID
    """The operation whose story is told again."""
    tells: str
    title: str
    from_step: str
    subject_revision: int
    steps: list[PlannedStep]
    decisions: list[PlannedDecision]
    pending: str
    leads_to: list[str]
    plan_hash: str


class EntryDocument(Document):
    """One line of the timeline."""

    number: int
    type: str
    at: datetime
    sentence: str
    actor: ActorDocument
    reason: str | None
    operation_id: UUID | None
    effect_key: str | None
    data: dict[str, Any]
    hash: str


class Timeline(Document):
    """Entries in order; `next` is the address of the following page."""

    case_id: UUID
    entries: list[EntryDocument]
    next: str | None


class SubjectRevision(Document):
    """The business data of a case as it was at a revision."""

    revision: int
    data: dict[str, Any]


class EvidenceEntry(Document):
    """An entry as its hash covers it."""

    number: int
    hash: str
    canonical: str
    """JSON with sorted keys and no spaces: exactly these characters, in UTF-8, are hashed."""


class EvidenceChain(Document):
    """How the entries hang together, so that nobody needs our code to check it."""

    rule: str
    genesis: str
    entries: int
    head: str


class EvidenceDocument(Document):
    """A case with all that happened to it, to be kept and to be verified without us."""

    format: str
    format_version: int
    exported_at: datetime
    exported_by: str
    case: dict[str, Any]
    subjects: list[SubjectRevision]
    operations: list[OperationDocument]
    timeline: list[EvidenceEntry]
    chain: EvidenceChain


class AttachedDocument(Document):
    """A document of a case. Its content is at `href`, and never changes."""

    document_id: UUID
    kind: str
    name: str
    media_type: str
    size: int
    sha256: str
    state: Literal["uploaded", "validating", "accepted", "refused"]
    reasons: list[ReasonDocument]
    """Why it is refused."""
    pages: int | None
    replaced_by: UUID | None
    """The one that counts in its place."""
    by: ActorDocument
    uploaded_at: datetime
    href: str


class MadeDocument(Document):
    """What a step made. Its content is at `href`, and never changes."""

    effect_key: str
    step: str
    title: str
    name: str
    media_type: str
    size: int
    sha256: str
    standing: bool
    """False once it was taken back."""
    made_at: datetime | None
    href: str


class KindDocument(Document):
    """A kind of document, with whether this actor may add one now and why not."""

    kind: str
    title: str
    media_types: list[str]
    allowed: bool
    reasons: list[ReasonDocument]


class AttachedList(Document):
    """The documents of a case, the oldest first, those that were replaced included."""

    documents: list[AttachedDocument]
    kinds: list[KindDocument]
    fingerprint: str | None
    """Of those that count: an approval is bound to it."""
    made: list[MadeDocument] = []
    """What steps of the case have made, the oldest first."""


class DelegationDocument(Document):
    """Somebody stands in for somebody else: in which roles, from when until when, and why."""

    delegation_id: UUID
    by: str
    to: str
    roles: list[str]
    from_at: datetime
    until: datetime
    reason: str
    ended_at: datetime | None
    """When it was ended before its time."""
    ended_by: str | None
    href: str


class DelegationList(Document):
    """Delegations, the newest first."""

    delegations: list[DelegationDocument]


class MessageDocument(Document):
    """An outbox message."""

    message_id: int
    destination: str
    case_id: UUID
    operation_id: UUID | None
    parked: bool
    tries: int
    error: str | None
    created_at: datetime


class MessageList(Document):
    """Outbox messages, oldest first; `next` is the address of the following page."""

    messages: list[MessageDocument]
    next: str | None = None


class BulkGroup(Document):
    """Cases that are blocked at the same step, by the same partner, for the same reason."""

    process: str
    step: str | None
    """None where the story itself can't go on."""
    title: str
    partner: str | None
    cause: str | None
    error_class: str | None
    error_code: str | None
    fingerprint: str
    count: int
    unknown: int
    """Of so many nobody knows whether the effect happened."""
    since: datetime
    """Of the one that waits longest."""
    latest: datetime
    """Since when the one that was blocked last waits: an order `until` then takes none that came later."""
    example: str | None
    """The partner's words in one of them."""
    recovery_owner: str


class BulkGroups(Document):
    """What is blocked, the largest group first."""

    groups: list[BulkGroup]


class BulkNote(Document):
    """A line of a run's own account."""

    at: datetime
    by: str
    what: str
    reason: str | None = None


class BulkDocument(Document):
    """A bulk run: one override over a frozen list of cases."""

    bulk_id: UUID
    state: str
    sentence: str
    override: str
    reason: str
    input: dict[str, Any]
    actor: ActorDocument
    group: dict[str, Any] | None
    partners: list[str]
    canary: int
    rate: int
    stop_after: int
    look: bool
    total: int
    counts: dict[str, int]
    """How many of its cases are in each state; every state stands here."""
    stopped_because: str | None
    account: list[BulkNote]
    items: str
    """The address of its cases."""
    created_at: datetime
    changed_at: datetime
    finished_at: datetime | None


class BulkList(Document):
    """Bulk runs, the newest first."""

    runs: list[BulkDocument]
    next: str | None


class BulkItemDocument(Document):
    """One case of a bulk run, with its verified outcome."""

    number: int
    case_id: UUID
    business_key: str
    step: str | None
    item: str | None
    effect_key: str | None
    state: str
    operation_id: UUID | None
    outcome: dict[str, Any] | None
    begun_at: datetime | None
    changed_at: datetime


class BulkItemList(Document):
    """The cases of a run in their order; `next` is the address of the following page."""

    items: list[BulkItemDocument]
    next: str | None


class CallbackDocument(Document):
    """What a partner called back."""

    partner: str
    event_id: str
    effect_key: str
    case_id: UUID | None
    call: str | None
    outcome: str
    answer: dict[str, Any] | None
    error: dict[str, Any] | None
    parked: bool
    received_at: datetime
    used_at: datetime | None


class CallbackList(Document):
    """Callbacks, oldest first."""

    callbacks: list[CallbackDocument]


class CallbackReceipt(Document):
    """A callback is stored; `duplicate` where it was before."""

    event_id: str
    duplicate: bool


class PauseDocument(Document):
    """The pause of a process, a partner or a case, standing or not."""

    pause_id: UUID
    scope: str
    """`process`, `partner` or `case`."""
    name: str
    """Of the process or the partner; the id of the case."""
    state: str
    """`open`, `paused`, `probing` (a few cases may try) or `resuming` (its cases are woken at a limited rate)."""
    since: datetime
    by: ActorDocument | None
    reason: str | None
    deadlines: str
    rate: int | None
    """Cases a second that a resume wakes."""
    cases_waiting: int
    """Cases with a step that waits for it."""
    probe_at: datetime | None
    """When the breaker lets a few cases try."""
    href: str
    """Where to resume it."""


class PauseList(Document):
    """The pauses of every process and every partner."""

    pauses: list[PauseDocument]


class Spread(Document):
    """How long something took, in seconds; without any of it there is nothing to say but the count."""

    count: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    longest: float | None = None


class OperationNumbers(Document):
    """What became of the operations of one name that were asked for within the days, by owner."""

    kind: str
    name: str
    title: str
    owner: str
    """Of the step that an override helped; else of the process."""
    accepted: int
    repeated: int
    """Transitions that the same case had taken before."""
    by_system: int
    completed: int
    undone: int
    superseded: int
    open: int
    """Accepted, and without an outcome yet."""
    proposed: int
    """Waiting for confirmation."""
    declined: int
    """Declined or expired: never accepted."""
    started: Spread
    """Acceptance to start."""
    outcome: Spread
    """Acceptance to outcome."""


class StateNumbers(Document):
    """One state: who is in it now, and how long those were that left it within the days."""

    state: str
    title: str
    final: bool
    cases: int
    """In it now; closed cases are not counted."""
    stuck: int
    """Of them: blocked."""
    mean_seconds: float | None
    """For how long they have been in it, on the average."""
    oldest_since: datetime | None
    left: Spread


class StandingCases(Document):
    """Cases that stand alike: the same state, condition and owner."""

    state: str
    title: str
    condition: str
    owner: str | None
    """Who decides next, or is waited for."""
    cases: int
    oldest_since: datetime
    """Since when the oldest of them has been in this condition."""
    href: str
    """Where they are listed."""


class ProcessNumbers(Document):
    """One process in numbers."""

    process: str
    title: str
    owner: str
    open: int
    """Cases that are not closed."""
    stuck: int
    states: list[StateNumbers]
    standing: list[StandingCases]
    """Where cases stand to which a move is owed, what is stuck first, then the oldest."""
    operations: list[OperationNumbers]
    sampled: bool
    """More cases changed than were looked at for the time in states: the newest only."""


class PartnerNumbers(Document):
    """How a partner has answered lately, and whether it is held up."""

    partner: str
    processes: list[str]
    attempts: dict[str, int]
    """By outcome; `running` where there is none yet."""
    answered: Spread
    """How long attempts took."""
    last_succeeded_at: datetime | None
    last_failed_at: datetime | None
    """Failed, or unknown."""
    blocked: int
    """Effects that somebody has to decide about."""
    waiting: int
    """Effects that it took and has not finished."""
    pause: PauseDocument | None
    """Where one stands, by people or by the breaker."""


class Numbers(Document):
    """How the business runs: counted from what Postgres has on record, at one instant."""

    days: int
    since: datetime
    at: datetime
    recent_seconds: float
    """What `lately` means for partners."""
    processes: list[ProcessNumbers]
    partners: list[PartnerNumbers]


class Me(Document):
    """The actor as the server sees it."""

    id: str
    roles: list[str]
    stands_in: dict[str, str] = {}
    """By role that is not their own: the person for whom they stand in."""


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
        proposals=[_proposal(now, proposal, actor) for proposal in now.proposals] if actor else [],
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


def _proposal(now: Situation, proposal: ProposalView, actor: Actor) -> ProposalDocument:
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
    return AnswerDocument(allowed=decision.allowed, reasons=_reasons(decision), method="POST", href=href)


def _reasons(decision: Decision) -> list[ReasonDocument]:
    return [ReasonDocument(code=reason.code, message=reason.message) for reason in decision.reasons]


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
        reasons=_reasons(decision),
        confirmations=decision.further,
        method="POST",
        href=href,
        input_schema=schema,
    )


def step_documents(
    process: Process,
    declared: Sequence[Step[Any]],
    effects: Sequence[EffectView],
    offsets: Sequence[EffectView],
    attempts: Mapping[str, list[AttemptDocument]] | None = None,
) -> list[StepDocument]:
    """An operation's steps: what it declares, begun or not, and the compensation of every effect it has to offset."""
    documents: list[StepDocument] = []
    names, offset_keys = {step.name for step in declared}, {offset.key for offset in offsets}
    doing = [e for e in effects if e.direction == "do" and not (e.key in offset_keys and e.step in names)]
    of_step = {effect.step: [e for e in doing if e.step == effect.step] for effect in doing}
    for step in declared:
        begun = of_step.pop(step.name, [])
        documents += [_begun(process, effect, attempts) for effect in begun] or [_not_begun(process, step, None)]
    documents += [_begun(process, effect, attempts) for rest in of_step.values() for effect in rest]
    undoing = {effect.key: effect for effect in effects if effect.direction == "undo"}
    for offset in offsets:
        if offset.unsettled and offset.step in names:  # what became of it comes first
            documents.append(_begun(process, offset, attempts))
        compensation = undoing.get(offset.key + UNDO_SUFFIX)
        if compensation is not None:
            documents.append(_begun(process, compensation, attempts))
        elif offset.step_state != "voided" and offset.step in process.steps:
            documents.append(_not_begun(process, process.steps[offset.step], offset))
    return documents


def _begun(process: Process, effect: EffectView, attempts: Mapping[str, list[AttemptDocument]] | None) -> StepDocument:
    step = process.steps.get(effect.step)
    return StepDocument(
        name=effect.address,
        item=effect.item,
        title=step_title(step, effect.direction) if step else effect.step,
        direction=effect.direction,
        state=effect.step_state,
        outcome=effect.outcome,
        effect_key=effect.key,
        partner=effect.partner,
        recovery_owner=effect.decider,
        since=effect.since,
        result=dict(effect.result) if effect.result is not None else None,
        next_attempt_at=effect.next_attempt_at,
        fingerprint=effect.fingerprint,
        attempts=None if attempts is None else attempts.get(effect.key, []),
    )


def _not_begun(process: Process, step: Step[Any], offset: EffectView | None) -> StepDocument:
    return StepDocument(
        name=step.name if offset is None else step.name + UNDO_SUFFIX,
        item=offset.item if offset else None,
        title=step_title(step, "do" if offset is None else "undo"),
        direction="do" if offset is None else "undo",
        state="pending",
        outcome=None,
        effect_key=None,
        partner=step.partner,
        recovery_owner=process.owner_of(step),
        since=None,
        result=None,
        next_attempt_at=None,
    )


def entry_sentence(entry_type: str, data: Mapping[str, Any]) -> str:
    """An entry in words; entries of a later version's types show as their type."""
    try:
        return sentence(entry_type, data)
    except KeyError:
        return entry_type
