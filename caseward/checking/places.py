"""Where an abstract case may be, and what the real rules say of it.

What may be done in a situation is never worked out here: the real `policy.decide_all` is asked for one person of each
role, and the real `condition` for whoever decides next.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from caseward.policy import Action, Decision, bound_to, decide_all, decide_confirming, decide_opening
from caseward.process import ENGINE_ROLES, ENGINEERING, IMPOSSIBLE, Escalate, Process
from caseward.situation import (
    CASE,
    Actor,
    Direction,
    EffectState,
    EffectView,
    OperationView,
    Outcome,
    PauseView,
    ProposalView,
    Situation,
)

NOWHEN, NOBODY = datetime(2000, 1, 1, tzinfo=UTC), UUID(int=0)


class Open(NamedTuple):
    """An effect on which something is owed."""

    step: str
    direction: Direction
    state: EffectState = "running"
    outcome: Outcome | None = None
    cause: str | None = None
    only_settle: bool = False
    """Whoever took the case over finds out what became of it."""


class Work(NamedTuple):
    """The operation in flight."""

    name: str
    tells: str | None
    back: str | None
    """The state at rest that an undo leads to."""
    to: str | None = None
    """Where an undo or a force_cancel leads."""
    begun: int = 0
    """So many of its steps."""
    offsets: tuple[tuple[str, bool], ...] = ()
    open: tuple[Open, ...] = ()
    took_back: bool = False


class Past(NamedTuple):
    """The latest operation that took the case over and is over."""

    name: str
    tells: str | None
    back: str | None
    for_good: bool = False
    took_back: bool = False


class Place(NamedTuple):
    """An abstract case."""

    state: str
    work: Work | None = None
    standing: frozenset[tuple[str, bool]] = frozenset()
    """Effects that happened and could matter: the step, and whether the current or latest operation did it."""
    past: Past | None = None
    escalated: bool = False
    overdue: str | None = None
    """Who decides, once its deadline blocked it."""
    paused: bool = False


class Offered(NamedTuple):
    """Everything that anybody may do in a situation."""

    by_action: dict[Action, frozenset[str]]
    """The roles that may take it."""
    situation: Situation
    unconfirmed: tuple[str, ...]
    """Actions that would wait for confirmations which nobody may give."""


class Rules:
    """What the policy lets whom do with a case of this process, by where it is."""

    def __init__(self, process: Process, *, full: bool) -> None:
        self.process, self.steps = process, process.steps
        self.transitions = {each.name: each for each in process.transitions}
        self.states = {each.name: each for each in process.states}
        roles = sorted(ENGINE_ROLES | {role.name for role in process.roles})
        # One of each role, nobody having acted before: rules for different people are for different people to meet.
        self.people = [Actor(name, frozenset({name})) for name in roles]
        if not full:  # what anybody may do, the one who is everybody may
            self.people = [Actor("everybody", frozenset(roles))]
        self.commands = 0
        """Actions judged by the policy: by situation, action and role."""
        self.active: set[str] = set()
        """The roles that may do anything anywhere."""
        self._views: dict[Open, EffectView] = {}
        self._seen: dict[tuple[Any, ...], Offered] = {}

    def openers(self) -> set[str]:
        """Who may open a case."""
        who = {actor.id for actor in self.people if decide_opening(self.process, actor).allowed}
        self.commands += len(self.people)
        self.active |= who
        return who

    def offered(self, place: Place) -> Offered:
        """What anybody may do there."""
        work = place.work
        # The policy is told no more of an effect's past than this; the words of the condition alone differ by outcome.
        owed = tuple((e.step, e.direction, e.state, e.cause) for e in work.open) if work else ()
        view = work and (work.name, work.tells, owed, bool(work.offsets), work.took_back, self.for_good(work))
        past = place.past and place.past._replace(back=None)
        key = (place.state, view, past, place.escalated, place.overdue, place.paused)
        if key not in self._seen:
            self._seen[key] = self._ask(self._situation(place))
        return self._seen[key]

    def address(self, effect: Open) -> str:
        """How an override names it."""
        return self._effect(effect).address

    def owner(self, effect: Open) -> str:
        """Who decides about it."""
        return ENGINEERING if effect.cause == "code_error" else self.process.owner_of(self.steps[effect.step])

    def for_good(self, work: Work) -> bool:
        """It has begun a step that nothing takes back."""
        steps = self.transitions[work.tells].steps[: work.begun] if work.tells else ()
        return any(step.undo is IMPOSSIBLE for step in steps)

    def _ask(self, now: Situation) -> Offered:
        by_action: dict[Action, set[str]] = {}
        unconfirmed: set[str] = set()
        for actor in self.people:
            for action, decision in decide_all(now, actor):
                self.commands += 1
                if not decision.allowed:
                    continue
                by_action.setdefault(action, set()).add(actor.id)
                if decision.confirmation is not None and not self._confirmed(now, actor, action, decision):
                    unconfirmed.add(action.name)
        allowed = {action: frozenset(who) for action, who in by_action.items() if action.name not in unconfirmed}
        self.active |= {role for who in by_action.values() for role in who}
        return Offered(allowed, now, tuple(sorted(unconfirmed)))

    def _confirmed(self, now: Situation, proposer: Actor, action: Action, decision: Decision) -> bool:
        """Somebody else may confirm what is proposed."""
        confirmation, target = decision.confirmation, decision.target
        if confirmation is None:
            return True
        proposal = ProposalView(
            id=NOBODY, kind=action.kind, name=action.name, step=target.address if target else None, item=None,
            proposer=proposer, reason=None, input={}, bound=bound_to(now, target), confirmation=confirmation, given=(),
            proposed_at=NOWHEN, expires_at=NOWHEN,
        )  # fmt: skip
        others = [Actor(f"another {each.id}", each.roles) for each in self.people]
        may = [each for each in others if decide_confirming(now, each, proposal).allowed]
        self.active |= {role for each in may for role in each.roles}
        return bool(may)

    def _situation(self, place: Place) -> Situation:
        deadline = self.states[place.state].deadline
        escalated = deadline.then.role if place.escalated and deadline and isinstance(deadline.then, Escalate) else None
        return Situation(
            process=self.process,
            case_id=NOBODY,
            state=place.state,
            state_since=NOWHEN,
            deadline_at=None,
            escalated_to=escalated,
            version=1,
            operation=self._in_flight(place.work) if place.work else None,
            effects=tuple(self._effect(each) for each in place.work.open) if place.work else (),
            latest=self._over(place.past) if place.past else None,
            overdue={"since": NOWHEN.isoformat(), "recovery_owner": place.overdue} if place.overdue else None,
            pauses=(PauseView(key=CASE, stands=True, since=NOWHEN, reason=None, by=None),) if place.paused else (),
        )

    def _in_flight(self, work: Work) -> OperationView:
        return OperationView(
            id=NOBODY,
            kind="transition" if work.tells == work.name else "override",
            name=work.name,
            state="running" if work.begun or work.open else "accepted",
            tells=work.tells,
            accepted_at=NOWHEN,
            blocked=None,
            impossible_begun=self.for_good(work),
            took_back=work.took_back,
            offsetting=bool(work.offsets),
        )

    def _over(self, past: Past) -> OperationView:
        return OperationView(
            id=NOBODY,
            kind="transition" if past.tells == past.name else "override",
            name=past.name,
            state="completed",
            tells=past.tells,
            accepted_at=NOWHEN,
            blocked=None,
            impossible_begun=past.for_good,
            took_back=past.took_back,
        )

    def _effect(self, effect: Open) -> EffectView:
        if effect not in self._views:
            self._views[effect] = self._view(effect)
        return self._views[effect]

    def _view(self, effect: Open) -> EffectView:
        step = self.steps[effect.step]
        return EffectView(
            key=f"{effect.step}:{effect.direction}", operation_id=NOBODY, step=step.name, item=None,
            direction=effect.direction, partner=step.partner, recovery_owner=self.owner(effect), state=effect.state,
            outcome=effect.outcome, decision=None, cause=effect.cause, error=None, result=None, attempt_count=1,
            next_attempt_at=None, answer_by=None, since=NOWHEN, offset=False, ruled_out=False,
        )  # fmt: skip
