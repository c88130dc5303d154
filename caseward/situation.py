"""Where a case stands right now, as plain data, and the one condition that follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from caseward.bulk import fingerprint
from caseward.errors import Reason
from caseward.process import ENGINEERING, OPERATOR, Confirmation, Process, Step, team_title

Kind = Literal["transition", "override", "claim"]
Direction = Literal["do", "undo"]
OperationState = Literal[
    "proposed", "accepted", "running", "undoing", "completed", "undone", "superseded", "declined", "expired"
]
EffectState = Literal["running", "retrying", "waiting", "paused", "blocked", "settled"]
Outcome = Literal["succeeded", "failed", "unknown", "acknowledged", "not_needed"]
DecisionMade = Literal["skipped", "marked_done", "given_up", "voided"]
ConditionName = Literal["paused", "blocked", "undoing", "retrying", "waiting", "running", "queued", "done"]
StepState = Literal[
    "pending",
    "running",
    "retrying",
    "waiting",
    "paused",
    "blocked",
    "succeeded",
    "not_needed",
    "skipped",
    "marked_done",
    "given_up",
    "voided",
    "undone",
]

FINISHED: frozenset[OperationState] = frozenset({"completed", "undone", "superseded", "declined", "expired"})
NEVER_ACCEPTED: frozenset[OperationState] = frozenset({"proposed", "declined", "expired"})
UNDO_SUFFIX = ":undo"
# Why an effect that succeeded is blocked all the same: what the partner says does not add up, and people have to look.
QUESTIONS = frozenset({"happened_twice", "contradicted"})
# Decisions to go on without an effect; should it turn out to have happened, it is taken back and counts for nothing.
LEFT_OUT: frozenset[DecisionMade] = frozenset({"skipped", "given_up", "voided"})


@dataclass(frozen=True)
class Actor:
    """Who asks, in what capacities, and through which door."""

    id: str
    roles: frozenset[str]
    via: str = "api"
    lent: tuple[tuple[str, str], ...] = ()
    """Those of the roles that are not their own, each with the person for whom they stand in."""

    @property
    def own(self) -> frozenset[str]:
        """The roles that they have themselves."""
        return self.roles - {role for role, _ in self.lent}

    def on_behalf_of(self, role: str | None) -> str | None:
        """For whom they act in this role; None where it is their own."""
        return next((person for lent, person in self.lent if lent == role), None)

    def voices(self, role: str | None) -> frozenset[str]:
        """Everybody who has spoken, once they acted in this role."""
        person = self.on_behalf_of(role)
        return frozenset({self.id} if person is None else {self.id, person})

    @property
    def somebody(self) -> bool:
        """A person known by name, who can answer for something: not the engine, nor whoever signals a workflow."""
        return not {self.id, self.via} & {"system", "temporal"}


SYSTEM = Actor("system", frozenset(), "system")


CASE = "case"  # the key of a case's own pause; those of others are `process:{name}` and `partner:{name}`


@dataclass(frozen=True, kw_only=True)
class PauseView:
    """A pause that concerns a case: its own, its process's, or that of a partner which holds one of its effects up."""

    key: str
    stands: bool
    """Nothing new begins; else it is open, or being resumed."""
    since: datetime
    reason: str | None
    by: str | None
    owner: str = OPERATOR
    number: int = 0
    frozen_since: datetime | None = None
    """Since when it keeps the case's deadlines from passing."""

    @property
    def whole(self) -> bool:
        """It holds up all that the case does; a partner's only what needs the partner."""
        return not self.key.startswith("partner:")


def pause_words(key: str) -> str:
    """What is paused, within a sentence."""
    scope, _, name = key.partition(":")
    return {"case": "the case", "process": "the process", "partner": f"the partner {name.replace('_', ' ')}"}[scope]


@dataclass(frozen=True, kw_only=True)
class EffectView:
    """One effect as it stands."""

    key: str
    operation_id: UUID
    step: str
    item: str | None
    direction: Direction
    partner: str
    recovery_owner: str
    state: EffectState
    outcome: Outcome | None
    decision: DecisionMade | None
    cause: str | None
    error: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    attempt_count: int
    next_attempt_at: datetime | None
    answer_by: datetime | None
    since: datetime
    offset: bool
    ruled_out: bool
    """Somebody said that the unknown outcome did not happen."""
    paused_by: str | None = None
    """While it is `paused`: the key of the pause that it waits for."""

    @property
    def address(self) -> str:
        """How overrides and documents name it: the step, or `{step}:undo`."""
        return self.step + UNDO_SUFFIX if self.direction == "undo" else self.step

    @property
    def decider(self) -> str:
        """Who decides next: of what a pause holds up, whoever may resume it."""
        return OPERATOR if self.state == "paused" else self.recovery_owner

    @property
    def unsettled(self) -> bool:
        """Something is still owed on it."""
        return self.state != "settled"

    @property
    def fingerprint(self) -> str | None:
        """While it is blocked: what it has in common with others that one decision could mend."""
        if self.state != "blocked":
            return None
        error = self.error or {}
        return fingerprint(self.address, self.partner, self.cause, error.get("class"), error.get("code"))

    @property
    def questioned(self) -> bool:
        """It happened, and its owner has to look at what the partner reported beside that."""
        return self.state == "blocked" and self.cause in QUESTIONS

    @property
    def step_state(self) -> StepState:
        """The state as documents show it."""
        if self.state != "settled":
            return self.state
        if self.offset:
            return "undone"
        if self.decision is not None:
            return self.decision
        return "succeeded" if self.outcome == "succeeded" else "not_needed"


@dataclass(frozen=True, kw_only=True)
class OperationView:
    """One operation as it stands."""

    id: UUID
    kind: Kind
    name: str
    state: OperationState
    tells: str | None
    """The transition whose story it is: its own, or the one that it replays."""
    accepted_at: datetime
    blocked: Mapping[str, Any] | None
    impossible_begun: bool = False
    """A step that can't be undone has begun in it."""
    took_back: bool = False
    """What earlier operations had done was taken back in it, so that there is no way back to the state before."""
    offsetting: bool = False
    """It still has something to take back."""

    @property
    def undoable(self) -> bool:
        """Nothing in it keeps it from being undone."""
        return not (self.impossible_begun or self.took_back)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What a proposal is about. Confirming it is refused once any of this has changed."""

    fence: int
    operation: UUID | None
    """The one in flight."""
    subject_revision: int
    documents: str | None = None
    """Fingerprint of the documents that counted; None where the case had none."""
    effect_key: str | None = None
    attempt: int | None = None
    effect_state: EffectState | None = None


@dataclass(frozen=True, kw_only=True)
class DocumentView:
    """One document of a case; its content never changes."""

    id: UUID
    kind: str
    name: str
    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Given:
    """A person's confirmation."""

    actor_id: str
    role: str | None
    via: str
    reason: str | None
    at: datetime
    on_behalf_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProposalView:
    """A proposed operation as it stands."""

    id: UUID
    kind: Kind
    name: str
    step: str | None
    item: str | None
    proposer: Actor
    """With the one role in which the policy let them propose it."""
    reason: str | None
    input: Mapping[str, Any]
    bound: Bound
    confirmation: Confirmation
    """As declared when it was proposed."""
    given: tuple[Given, ...]
    proposed_at: datetime
    expires_at: datetime
    intact: bool = True
    """It still says what was proposed."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A case, the operation in flight with its effects, and what the rules look back on."""

    process: Process
    case_id: UUID
    state: str
    state_since: datetime
    deadline_at: datetime | None
    escalated_to: str | None
    version: int
    operation: OperationView | None = None
    effects: tuple[EffectView, ...] = ()
    latest: OperationView | None = None
    """The latest operation that took the case over and is over."""
    no_replay: tuple[Reason, ...] = ()
    """Why there is no step from which the case could be replayed; looked up for those who might."""
    acted: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Who took each transition in this case, or confirmed it."""
    fence: int = 0
    subject_revision: int = 1
    documents: str | None = None
    """Fingerprint of the documents that count; None where there are none."""
    proposals: tuple[ProposalView, ...] = ()
    """What waits for confirmation, the oldest first."""
    assignee: str | None = None
    """Who has claimed it."""
    subject: Any = None
    """The case's own revision, where a rule asks for it; None where nobody can read it any more."""
    overdue: Mapping[str, Any] | None = None
    """Its state's deadline passed, and the process declares that somebody decides then: since when, and who."""
    pauses: tuple[PauseView, ...] = ()
    """The case's own; where the policy looked back, also its process's and those that its effects wait for."""

    @property
    def held_by(self) -> PauseView | None:
        """The pause under which nothing new begins in this case."""
        return next((pause for pause in self.pauses if pause.stands and pause.whole), None)

    @property
    def etag(self) -> str:
        """The version, and behind a point the numbers of the pauses that apply, where there ever were any."""
        number = sum(pause.number for pause in self.pauses)
        return f"{self.version}.{number}" if number else str(self.version)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is happening to a case right now."""

    name: ConditionName
    sentence: str
    since: datetime
    step: str | None = None
    item: str | None = None
    cause: str | None = None
    recovery_owner: str | None = None
    waiting_on: str | None = None
    last_error: Mapping[str, Any] | None = None
    attempts: int | None = None
    next_attempt_at: datetime | None = None
    deadline_at: datetime | None = None
    fingerprint: str | None = None
    """Of what is blocked: cases with the same one belong to one group of a bulk run."""
    by: str | None = None
    """Who paused it."""
    reason: str | None = None
    """Why it is paused."""


def condition(now: Situation) -> Condition:
    """The most urgent of what is happening: paused, blocked, undoing, retrying, waiting, running, queued, done."""
    over = now.operation is None and now.process.state(now.state).final
    if now.held_by is not None and not over:
        return _paused(now, now.held_by)
    if now.operation is None:
        return _at_rest(now)
    return _escalated(now, _in_flight(now, now.operation))


def _in_flight(now: Situation, operation: OperationView) -> Condition:
    urgency = ("paused", "blocked", "retrying", "waiting", "running")
    unsettled = sorted((e for e in now.effects if e.unsettled), key=lambda e: (urgency.index(e.state), e.since))
    if unsettled and unsettled[0].state == "paused":
        return _held_up(now, unsettled[0])
    if operation.blocked is not None:
        return Condition(
            name="blocked",
            sentence="The code of this process could not go on. Engineering decides.",
            since=datetime.fromisoformat(operation.blocked["since"]),
            cause=operation.blocked["cause"],
            recovery_owner=ENGINEERING,
            last_error=operation.blocked["error"],
            fingerprint=story_fingerprint(operation.blocked),
        )
    if unsettled and unsettled[0].state == "blocked":
        return _of_effect(now.process, unsettled[0])
    if now.overdue is not None:
        return _overdue(now, now.overdue)
    if operation.offsetting or operation.tells is None:
        return _undoing(now, operation, unsettled)
    if unsettled:
        return _of_effect(now.process, unsettled[0])
    if operation.state == "accepted":
        return Condition(
            name="queued",
            sentence="Accepted, not begun yet.",
            since=operation.accepted_at,
            recovery_owner=now.process.owner,
        )
    return Condition(
        name="running",
        sentence="The next step is about to begin.",
        since=operation.accepted_at,
        recovery_owner=now.process.owner,
    )


def story_fingerprint(blocked: Mapping[str, Any]) -> str:
    """The fingerprint of an operation whose story itself can't go on."""
    return fingerprint(None, None, blocked["cause"], None, blocked["error"].get("code"))


def _overdue(now: Situation, overdue: Mapping[str, Any]) -> Condition:
    owner = overdue["recovery_owner"]
    return Condition(
        name="blocked",
        sentence=f"{now.process.state(now.state).title}: the time for it is over. {team_title(owner)} decides.",
        since=datetime.fromisoformat(overdue["since"]),
        cause="deadline",
        recovery_owner=owner,
    )


def _escalated(now: Situation, current: Condition) -> Condition:
    """While steps run nobody owes a move; when that takes too long, somebody is to look."""
    if now.escalated_to is None:
        return current
    title = now.process.role_title(now.escalated_to)
    return replace(
        current,
        sentence=f"{current.sentence} It takes too long: {_a(title.lower())} looks.",
        waiting_on=now.escalated_to,
    )


def _paused(now: Situation, pause: PauseView) -> Condition:
    what = "This case is" if pause.key == CASE else f"All cases of {now.process.title} are"
    return Condition(
        name="paused",
        sentence=f"{what} paused: nothing new begins until somebody resumes.",
        since=pause.since,
        recovery_owner=pause.owner,
        by=pause.by,
        reason=pause.reason,
    )


def _held_up(now: Situation, effect: EffectView) -> Condition:
    """A step waits for a pause; one that was resumed lets go of its cases one by one."""
    key = effect.paused_by or CASE
    pause = next((pause for pause in now.pauses if pause.key == key), None)
    step = now.process.steps.get(effect.step)
    title = step_title(step, effect.direction) if step else effect.step
    return Condition(
        name="paused",
        sentence=f"Waiting, because {pause_words(key)} is paused: {title}.",
        since=effect.since,
        step=effect.address,
        item=effect.item,
        recovery_owner=effect.decider,
        last_error=effect.error,
        attempts=effect.attempt_count,
        by=pause.by if pause else None,
        reason=pause.reason if pause else None,
    )


def _at_rest(now: Situation) -> Condition:
    if now.overdue is not None:
        return _overdue(now, now.overdue)
    state = now.process.state(now.state)
    waiting_on = now.escalated_to or state.waiting_on
    if waiting_on is None:
        return Condition(name="done", sentence="Nobody owes anything.", since=now.state_since)
    title = now.process.role_title(waiting_on)
    return Condition(
        name="waiting",
        sentence=f"Waiting for {_a(title.lower())}.",
        since=now.state_since,
        waiting_on=waiting_on,
        recovery_owner=waiting_on,
        deadline_at=now.deadline_at,
    )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _undoing(now: Situation, operation: OperationView, unsettled: list[EffectView]) -> Condition:
    first = unsettled[0] if unsettled else None
    return Condition(
        name="undoing",
        sentence="What was done is being taken back.",
        since=operation.accepted_at,
        step=first.address if first else None,
        item=first.item if first else None,
        recovery_owner=first.recovery_owner if first else now.process.owner,
        last_error=first.error if first else None,
        attempts=first.attempt_count if first else None,
        next_attempt_at=first.next_attempt_at if first else None,
    )


def _of_effect(process: Process, effect: EffectView) -> Condition:
    step = process.steps.get(effect.step)
    title = step_title(step, effect.direction) if step else effect.step
    partner = f"the partner {effect.partner.replace('_', ' ')}"
    sentence = {
        "running": f"Running: {title}.",
        "retrying": f"{partner.capitalize()} did not do it yet: {title}. We try again.",
        "waiting": f"{partner.capitalize()} took the request and has not finished: {title}.",
        "blocked": _blocked_sentence(effect, partner, title),
    }[effect.state]
    if effect.state == "retrying" and effect.outcome == "unknown":
        sentence = f"Nobody can tell yet whether {partner} did it: {title}. We find out."
    return Condition(
        name=effect.state if effect.state != "settled" else "running",
        sentence=sentence,
        since=effect.since,
        step=effect.address,
        item=effect.item,
        cause=effect.cause if effect.state == "blocked" else None,
        recovery_owner=effect.recovery_owner,
        waiting_on=effect.partner if effect.state == "waiting" else None,
        last_error=effect.error,
        attempts=effect.attempt_count,
        next_attempt_at=effect.next_attempt_at,
        deadline_at=effect.answer_by if effect.state == "waiting" else None,
        fingerprint=effect.fingerprint,
    )


def _blocked_sentence(effect: EffectView, partner: str, title: str) -> str:
    # Whatever the last attempt was refused for, what matters is that an earlier one may have done it.
    shown = "unknown" if effect.outcome == "unknown" else effect.cause
    return f"{cause_words(shown, partner)}: {title}. {team_title(effect.recovery_owner)} decides."


def cause_words(cause: str | None, partner: str) -> str:
    """Why something is blocked, as a sentence begins."""
    words = BLOCKED.get(cause or "", "{partner} could not do it").format(partner=partner)
    return f"{words[0].upper()}{words[1:]}"


BLOCKED = {
    "rejected": "{partner} refused",
    "unauthorized": "{partner} does not accept our credentials",
    "invalid": "The request was malformed or has changed",
    "exhausted": "{partner} kept failing",
    "unknown": "Nobody can tell whether {partner} did it",
    "no_answer": "{partner} never answered",
    "happened_twice": "{partner} did it twice",
    "contradicted": "{partner} did it, and later said that it did not happen",
    "no_compensation": "Nothing can offset it",
    "step_missing": "This version of our code has no such step",
    "code_error": "Our own code failed on it",
}


def effect_title(process: Process, step: str, direction: Direction) -> str:
    """What people call the effect of a step, declared or not any more."""
    declared = process.steps.get(step)
    if declared is None:
        return step.replace("_", " ").capitalize() if direction == "do" else f"Offset: {step.replace('_', ' ')}"
    return step_title(declared, direction)


def address_title(process: Process, address: str) -> str:
    """The same, by the step's name or `{step}:undo`."""
    step = address.removesuffix(UNDO_SUFFIX)
    return effect_title(process, step, "do" if step == address else "undo")


def step_title(step: Step[Any], direction: Direction) -> str:
    """The title of a step, or of its compensation."""
    if direction == "do":
        return step.title
    return step.undo if isinstance(step.undo, str) else f"Offset: {step.title}"
