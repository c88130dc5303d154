"""What only shows when cases are walked through a process: every situation, every command, every outcome.

An abstract case is walked breadth first from its opening. What may be done in a situation is never worked out here:
the real `policy.decide_all` is asked for one person of each role, and the real `condition` for whoever decides next.
What is abstract is the work outside: no data, no clock, steps in their declared order, one at a time or two neighbours
side by side (each of which succeeds, is refused, or leaves nobody knowing), what is taken back after them; at most one
step of an operation that did nothing; what stands since earlier operations as far as some story undoes it. A replay
does the latest story again, by the real rules of its plan; one of a story with later work behind it is not played.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from caseward.offsets import divide, irrevocable
from caseward.policy import Action, Decision, bound_to, decide, decide_all, decide_confirming, decide_opening
from caseward.process import (
    ENGINE_ROLES,
    ENGINEERING,
    IMPOSSIBLE,
    NONE_NEEDED,
    Block,
    Escalate,
    Process,
    Take,
    Transition,
    Unwind,
)
from caseward.situation import (
    CASE,
    Actor,
    DecisionMade,
    Direction,
    EffectState,
    EffectView,
    OperationView,
    Outcome,
    PauseView,
    ProposalView,
    Situation,
    condition,
)

NOWHEN, NOBODY = datetime(2000, 1, 1, tzinfo=UTC), UUID(int=0)
MOST = 500_000  # situations; about a minute. A process beyond that is told so, rather than called sound


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


class Tried(NamedTuple):
    """What the latest story did, or tried, as the rules of a replay see it."""

    step: str
    state: EffectState
    outcome: Outcome | None
    decision: DecisionMade | None = None
    standing: bool = False
    direction: Direction = "do"
    ruled_out_by: UUID | None = None
    offset_at: datetime | None = None
    attempt_count: int = 1

    @property
    def key(self) -> str:
        """An abstract case has one of each step."""
        return self.step


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


class Move(NamedTuple):
    """How a case comes from one place to another."""

    label: str
    to: Place
    kind: str = "outcome"  # or command, deadline, begin


class Offered(NamedTuple):
    """Everything that anybody may do in a situation."""

    by_action: dict[Action, frozenset[str]]
    """The roles that may take it."""
    tried: int
    situation: Situation
    unconfirmed: tuple[str, ...]
    """Actions that would wait for confirmations which nobody may give."""


@dataclass(frozen=True)
class Finding:
    """Something wrong, and the shortest way to it."""

    process: str
    kind: str
    where: str
    words: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        way = f" (after {', '.join(self.path)})" if self.path else ""
        return f"{self.process}: {self.where}: {self.words}{way}"


@dataclass
class Exploration:
    """What was looked at, and what was found."""

    process: str
    situations: int = 0
    commands: int = 0
    """Actions judged by the policy: by situation, action and role."""
    outcomes: int = 0
    """Outcomes of attempts, and deadlines, that were played."""
    replays: int = 0
    """Replays that were played: by situation, and step from which."""
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def counts(self) -> str:
        """How much was looked at, in words."""
        played = f"{self.situations} situations, {self.commands} commands, {self.outcomes} outcomes"
        return f"{played}, {self.replays} replays"


# What may become of an attempt; `no` refusal is like another to a person, so each is played.
_REFUSALS = ("rejected", "unauthorized", "invalid")
_SIDE_BY_SIDE = ("succeeded", "rejected", "unknown")
_FULL = ("succeeded", "not_needed", *_REFUSALS, "transient", "unknown", "acknowledged", "code_error")
_COARSE = ("succeeded", "rejected")


def explore(process: Process) -> Exploration:
    """Walk a case to every situation that its declaration allows."""
    return _Explorer(process, _FULL).run()


def glance(process: Process) -> list[Finding]:
    """The fast form, for every load: each step succeeds or is refused, alone; people take transitions only.

    Of what it finds the full form finds the same, and more. What has no compensation blocks for its owner when it comes
    to that, and keeps nobody from working until `caseward check` has named it.
    """
    return [each for each in _Explorer(process, _COARSE).run().findings if each.kind != "no_compensation"]


def _still(outcome: Outcome | None) -> Outcome | None:
    """What another attempt begins with: only what nobody knows outlasts it."""
    return outcome if outcome in {"unknown", "acknowledged"} else None


def _mine(place: Place) -> set[tuple[str, bool]]:
    """What stands of the current or latest operation."""
    return {each for each in place.standing if each[1]}


class _Explorer:
    def __init__(self, process: Process, outcomes: tuple[str, ...]) -> None:
        self.process, self.outcomes, self.full = process, outcomes, outcomes is _FULL
        self.steps = process.steps
        self.order = {name: number for number, name in enumerate(self.steps)}
        self.transitions = {each.name: each for each in process.transitions}
        self.states = {each.name: each for each in process.states}
        self.undone_later = {step.name for each in process.transitions for step in each.undoes}
        roles = sorted(ENGINE_ROLES | {role.name for role in process.roles})
        # One of each role, nobody having acted before: rules for different people are for different people to meet.
        self.people = [Actor(name, frozenset({name})) for name in roles]
        if not self.full:  # what anybody may do, the one who is everybody may
            self.people = [Actor("everybody", frozenset(roles))]
        self.found = Exploration(process.name)
        self.came: dict[Place, tuple[Place | None, str]] = {}
        self.views: dict[Open, EffectView] = {}
        self.somebody = process.teams | ENGINE_ROLES | {ENGINEERING, *(role.name for role in process.roles)}
        self.seen_by_policy: dict[tuple[Any, ...], Offered] = {}
        self.known: set[tuple[str, str, str]] = set()
        self.taken: set[str] = set()
        self.active: set[str] = set()
        self.answers: dict[str, list[tuple[str, Place]]] = {}
        """By state whose deadline escalated, or which waits on somebody: what is wrong unless somebody can act."""
        self.answered: set[str] = set()

    def run(self) -> Exploration:
        waiting = deque[Place]()
        onward: dict[Place, list[Place]] = {}
        for move in self._openings():
            self._arrive(move, None, waiting)
        while waiting:
            place = waiting.popleft()
            if len(self.came) > MOST:
                self._find("too_large", "process", f"more than {MOST} situations; what lies beyond was not looked at")
                break
            unclear = place.work is None or any(each.state == "blocked" for each in place.work.open)
            offered = self._offered(place) if self.full or unclear else None
            if offered is None:
                for move in self._work_goes_on(place):
                    self._arrive(move, place, waiting)
                    onward.setdefault(move.to, []).append(place)
                continue
            self._judge(place, offered)
            for move in self._moves(place, offered):
                self._arrive(move, place, waiting)
                if move.label != "force_cancel":
                    onward.setdefault(move.to, []).append(place)
        self.found.situations = len(self.came)
        self._look_back(onward)
        return self.found

    def _arrive(self, move: Move, origin: Place | None, waiting: deque[Place]) -> None:
        if move.kind in {"outcome", "deadline"}:
            self.found.outcomes += 1
        if move.to not in self.came:
            self.came[move.to] = (origin, move.label)
            waiting.append(move.to)

    # --- what people may do, by the policy itself

    def _openings(self) -> Iterator[Move]:
        opening = self.process.opening
        who = {actor.id for actor in self.people if decide_opening(self.process, actor).allowed}
        self.found.commands += len(self.people)
        self.active |= who
        if who:
            self.taken.add(opening.name)
            # What it does before it has led anywhere can be taken back to nowhere else.
            yield from self._take(Place(opening.undone or opening.targets[0]), opening, None)

    def _offered(self, place: Place) -> Offered:
        work = place.work
        # The policy is told no more of an effect's past than this; the words of the condition alone differ by outcome.
        owed = tuple((e.step, e.direction, e.state, e.cause) for e in work.open) if work else ()
        view = work and (work.name, work.tells, owed, bool(work.offsets), work.took_back, self._for_good(work))
        past = place.past and place.past._replace(back=None)
        key = (place.state, view, past, place.escalated, place.overdue, place.paused)
        if key not in self.seen_by_policy:
            self.seen_by_policy[key] = self._ask(self._situation(place))
        return self.seen_by_policy[key]

    def _ask(self, now: Situation) -> Offered:
        by_action: dict[Action, set[str]] = {}
        unconfirmed: set[str] = set()
        tried = 0
        for actor in self.people:
            for action, decision in decide_all(now, actor):
                tried += 1
                if not decision.allowed:
                    continue
                by_action.setdefault(action, set()).add(actor.id)
                if decision.confirmation is not None and not self._confirmed(now, actor, action, decision):
                    unconfirmed.add(action.name)
        self.found.commands += tried
        allowed = {action: frozenset(who) for action, who in by_action.items() if action.name not in unconfirmed}
        self.active |= {role for who in by_action.values() for role in who}
        return Offered(allowed, tried, now, tuple(sorted(unconfirmed)))

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

    # --- the abstract case as the policy sees it

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
            impossible_begun=self._for_good(work),
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
        if effect not in self.views:
            self.views[effect] = self._view(effect)
        return self.views[effect]

    def _view(self, effect: Open) -> EffectView:
        step = self.steps[effect.step]
        return EffectView(
            key=f"{effect.step}:{effect.direction}", operation_id=NOBODY, step=step.name, item=None,
            direction=effect.direction, partner=step.partner, recovery_owner=self._owner(effect), state=effect.state,
            outcome=effect.outcome, decision=None, cause=effect.cause, error=None, result=None, attempt_count=1,
            next_attempt_at=None, answer_by=None, since=NOWHEN, offset=False, ruled_out=False,
        )  # fmt: skip

    def _owner(self, effect: Open) -> str:
        return ENGINEERING if effect.cause == "code_error" else self.process.owner_of(self.steps[effect.step])

    def _for_good(self, work: Work) -> bool:
        steps = self.transitions[work.tells].steps[: work.begun] if work.tells else ()
        return any(step.undo is IMPOSSIBLE for step in steps)

    # --- where it can go from there

    def _moves(self, place: Place, offered: Offered) -> Iterator[Move]:
        yield from self._work_goes_on(place)
        yield from self._deadline(place)
        for action in offered.by_action:
            yield from self._command(place, action)

    def _command(self, place: Place, action: Action) -> Iterator[Move]:
        if action.kind == "transition":
            self.taken.add(action.name)
            yield from self._take(place, self.transitions[action.name], place.work)
        elif not self.full and action.name not in {"skip", "mark_done"}:
            return
        elif action.name == "undo":
            yield self._undo(place, "undo", "command")
        elif action.name == "force_cancel":
            yield self._force_cancel(place)
        elif action.name == "replay":
            yield from self._replay(place)
        elif action.name in {"retry", "skip", "mark_done"}:
            yield from self._help(place, action)

    def _help(self, place: Place, action: Action) -> Iterator[Move]:
        work = place.work
        if action.name == "retry" and action.step is None and place.overdue:
            yield Move("retry", place._replace(overdue=None), "command")
        if work is None:
            return
        for effect in work.open:
            if effect.state == "running" or self._effect(effect).address != (action.step or ""):
                continue
            label = f"{action.name} {action.step}"
            if action.name == "retry":
                running = effect._replace(state="running", outcome=_still(effect.outcome), cause=None)
                yield Move(label, self._with(place, effect, running), "command")
            else:
                done = action.name == "mark_done"
                yield Move(label, self._settled(place, effect, happened=done), "command")

    def _take(self, place: Place, transition: Transition, voided: Work | None) -> Iterator[Move]:
        """Accept a transition, from rest or over what is under way."""
        asked, offsets = self._void(place, voided) if voided else ((), ())
        back = (voided.back or self.process.opening.undone) if voided else place.state
        standing = place.standing if voided else self._earlier(place.standing)
        work = Work(transition.name, transition.name, back, offsets=offsets, open=asked)
        begun = Place(place.state, work, standing)
        if transition.pending and (transition.told or offsets or asked):
            yield Move(transition.name, begun._replace(state=transition.pending), "command")
        else:
            for target in transition.targets:
                yield Move(transition.name, self._completed(begun, work, target), "command")

    def _void(self, place: Place, voided: Work) -> tuple[tuple[Open, ...], tuple[tuple[str, bool], ...]]:
        """What has to be found out, and what has to be taken back, latest first."""
        asked = tuple(
            Open(each.step, "do", "running", "unknown", only_settle=True)
            for each in voided.open
            if each.direction == "do"
            and self.steps[each.step].undo is not NONE_NEEDED
            and (each.outcome in {"unknown", "acknowledged"} or each.state == "running")
        )
        undoing = [(each.step, True) for each in voided.open if each.direction == "undo"]
        mine = [each for each in place.standing if each[1] or each in voided.offsets]
        return asked, self._latest_first({*undoing, *mine} & place.standing)

    def _earlier(self, standing: frozenset[tuple[str, bool]]) -> frozenset[tuple[str, bool]]:
        """What a new operation finds standing, as far as it makes a difference."""
        return frozenset((step, False) for step, _ in standing if step in self.undone_later)

    def _latest_first(self, standing: set[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
        return tuple(sorted(standing, key=lambda each: (not each[1], -self.order[each[0]])))

    def _undo(self, place: Place, label: str, kind: str) -> Move:
        """Take back the operation in flight, or the latest."""
        work, past = place.work, place.past
        asked, offsets = self._void(place, work) if work else ((), self._latest_first(_mine(place)))
        tells = work.tells if work else past.tells if past else None
        back = work.back if work else past.back if past else None
        transition = self.transitions[tells] if tells else None
        to = (transition.undone if transition else None) or back or place.state
        undo = Work("undo", None, back, to=to, offsets=offsets, open=asked)
        begun = Place(place.state, undo, place.standing)
        if not offsets and not asked:
            return Move(label, self._completed(begun, undo, to), kind)
        pending = transition.pending if transition and transition.pending else place.state
        return Move(label, begun._replace(state=pending), kind)

    def _force_cancel(self, place: Place) -> Move:
        cancel = self.process.force_cancel
        asked = self._void(place, place.work)[0] if place.work else ()
        offsets = self._latest_first(set(place.standing))
        work = Work("force_cancel", None, None, to=cancel.to, offsets=offsets, open=asked)
        begun = Place(place.state, work, place.standing)
        if not offsets and not asked:
            return Move("force_cancel", self._completed(begun, work, cancel.to), "command")
        return Move("force_cancel", begun._replace(state=cancel.pending), "command")

    def _replay(self, place: Place) -> Iterator[Move]:
        """Do the latest story again, from each step from which that can be."""
        work, past = place.work, place.past
        latest = work or past
        if latest is None or latest.tells is None:
            return
        story = self.transitions[latest.tells]
        done = self._done(place, story, work)
        asked, offsets = self._void(place, work) if work else ((), self._latest_first(_mine(place)))
        for step in story.steps[: len(done)]:
            reuse, again = divide(story, step.name, done)
            if irrevocable(self.process, again, done, done):
                continue
            left = tuple((name, own) for name, own in offsets if not (own and name in reuse))
            work = Work("replay", story.name, latest.back, None, len(reuse), left, asked, latest.took_back)
            self.found.replays += 1
            begun = Place(story.pending or place.state, work, place.standing)
            yield Move(f"replay from {step.name}", begun, "command")

    def _done(self, place: Place, story: Transition, work: Work | None) -> dict[str, Tried]:
        """What the story has come to, by step."""
        still_open = {each.step: each for each in work.open if each.direction == "do"} if work else {}
        done: dict[str, Tried] = {}
        for step in story.steps[: work.begun] if work else story.steps:
            effect = still_open.get(step.name)
            if effect is not None:
                done[step.name] = Tried(step.name, effect.state, effect.outcome)
            elif (step.name, True) in place.standing or step.undo is NONE_NEEDED:
                done[step.name] = Tried(step.name, "settled", "succeeded", standing=True)
            else:
                done[step.name] = Tried(step.name, "settled", "failed", "skipped")
        return done

    def _deadline(self, place: Place) -> Iterator[Move]:
        deadline, work = self.states[place.state].deadline, place.work
        if deadline is None or place.escalated or place.overdue or (work and not work.tells):
            return
        label = f"deadline of {place.state}"
        match deadline.then:
            case Escalate():
                yield Move(label, place._replace(escalated=True), "deadline")
            case Take(name):
                self.taken.add(name)
                for move in self._take(place, self.transitions[name], work):
                    yield move._replace(label=label, kind="deadline")
            case Unwind():
                yield self._unwind(place, label)
            case Block(owner):
                yield Move(label, place._replace(overdue=owner or self.process.owner), "deadline")

    def _unwind(self, place: Place, label: str) -> Move:
        work, past = place.work, place.past
        tells = work.tells if work else past.tells if past else None
        for_good = self._for_good(work) if work else past.for_good if past else False
        took_back = work.took_back if work else past.took_back if past else False
        if tells is not None and for_good:
            transition = self.transitions[tells]
            names = ", ".join(step.name for step in transition.steps if step.undo is IMPOSSIBLE)
            words = f"its deadline undoes {tells}, but step {names} is for good"
            self._find("no_compensation", f"state {place.state}", words, place, label)
        if tells is None or for_good or took_back:
            return Move(label, place._replace(overdue=self.process.owner), "deadline")
        return self._undo(place, label, "deadline")

    # --- the story, and what becomes of its steps

    def _work_goes_on(self, place: Place) -> Iterator[Move]:
        work = place.work
        if work is None:
            return
        if work.open:
            for effect in work.open:
                yield from self._attempt(place, effect)
        elif work.offsets:
            yield Move("", self._offset(place, work))
        elif work.tells:
            # With nothing left to take back a replay is its story, told from where it goes on.
            yield from self._story(place, work._replace(name=work.tells), self.transitions[work.tells])
        else:
            yield Move("", self._completed(place, work, work.to or place.state), "begin")

    def _offset(self, place: Place, work: Work) -> Place:
        (step, _), *_ = work.offsets
        state, cause = ("blocked", "no_compensation") if self.steps[step].undo is IMPOSSIBLE else ("running", None)
        if cause and work.tells:  # who undoes or cancels by force is told so, and knows the price
            words = f"takes back {step}, which is for good"
            self._find("no_compensation", f"transition {work.tells}", words, place)
        opened = Open(step, "undo", state, None, cause)
        return place._replace(work=work._replace(open=(opened,)))

    def _story(self, place: Place, work: Work, transition: Transition) -> Iterator[Move]:
        left = transition.steps[work.begun :]
        undoes = {step.name for step in transition.undoes}
        earlier = self._latest_first({each for each in place.standing if not each[1] and each[0] in undoes})
        if left:
            for many in (1, 2) if self.full else (1,):
                opened = tuple(Open(step.name, "do") for step in left[:many])
                if len(opened) == many:
                    yield Move("", place._replace(work=work._replace(begun=work.begun + many, open=opened)), "begin")
        elif earlier and not work.took_back:
            yield Move("", place._replace(work=work._replace(took_back=True, offsets=earlier)), "begin")
        else:
            for target in transition.targets:
                yield Move("", self._completed(place, work, target), "begin")

    def _attempt(self, place: Place, effect: Open) -> Iterator[Move]:
        address = self._effect(effect).address
        if effect.state == "running":
            pair = place.work is not None and len(place.work.open) > 1
            for outcome in _SIDE_BY_SIDE if pair else self.outcomes:
                if outcome != "not_needed" or effect.direction == "do":
                    yield Move(f"{address} {outcome}", self._outcome(place, effect, outcome))
        elif effect.state == "retrying":
            again = effect._replace(state="running", outcome=_still(effect.outcome))
            yield Move("", self._with(place, effect, again), "begin")
            yield Move(f"{address} exhausted", self._exhausted(place, effect, "exhausted"))
            if effect.outcome == "unknown":  # where the partner can't be asked
                yield Move(f"{address} stays unknown", self._blocked(place, effect, "unknown"))
        elif effect.state == "waiting":
            yield Move(f"{address} succeeded", self._settled(place, effect, happened=True))
            yield Move(f"{address} rejected", self._outcome(place, effect, "rejected"))
            yield Move(f"{address} never answered", self._exhausted(place, effect, "no_answer"))

    def _outcome(self, place: Place, effect: Open, outcome: str) -> Place:
        match outcome:
            case "succeeded" | "not_needed":
                return self._settled(place, effect, happened=outcome == "succeeded")
            case "transient" | "unknown":
                known = "unknown" if "unknown" in {outcome, effect.outcome} else "failed"
                return self._with(place, effect, effect._replace(state="retrying", outcome=known))
            case "acknowledged":
                return self._with(place, effect, effect._replace(state="waiting", outcome="acknowledged"))
            case "code_error":
                return self._blocked(place, effect._replace(outcome=effect.outcome or "failed"), "code_error")
            case _:
                # What a repeated request is refused for says nothing of the one before.
                known = "unknown" if effect.outcome == "unknown" and not effect.only_settle else "failed"
                if effect.only_settle:
                    return self._settled(place, effect, happened=False)
                return self._exhausted(place, effect._replace(outcome=known), outcome)

    def _exhausted(self, place: Place, effect: Open, cause: str) -> Place:
        """No attempt is left: as the step declares."""
        work = place.work
        declared = self.steps[effect.step].exhausted if effect.direction == "do" and not effect.only_settle else "block"
        if declared == "proceed":
            return self._settled(place, effect, happened=False)
        if declared == "undo" and work and work.tells and not work.took_back:
            lasting = [s.name for s in self.transitions[work.tells].steps[: work.begun] if s.undo is IMPOSSIBLE]
            if lasting:
                words = f"exhausted means undo, but {', '.join(lasting)} of {work.tells} is for good"
                self._find("no_compensation", f"step {effect.step}", words, place, f"{effect.step} {cause}")
            blocked = self._blocked(place, effect, cause)
            return self._undo(blocked, "", "outcome").to
        return self._blocked(place, effect, cause)

    def _blocked(self, place: Place, effect: Open, cause: str) -> Place:
        return self._with(place, effect, effect._replace(state="blocked", cause=cause))

    def _with(self, place: Place, effect: Open, *instead: Open) -> Place:
        work = place.work
        if work is None:
            return place
        opened = tuple(new for each in work.open for new in (instead if each.step == effect.step else (each,)))
        return place._replace(work=work._replace(open=opened))

    def _settled(self, place: Place, effect: Open, *, happened: bool) -> Place:
        """Nothing more is owed on it."""
        place, standing = self._with(place, effect), place.standing
        work = place.work
        if work is None:
            return place
        if effect.direction == "undo":
            offset, *left = work.offsets
            # One that was left out stands on, and nobody is asked for it again.
            standing -= {offset}
            return place._replace(work=work._replace(offsets=tuple(left)), standing=standing)
        if self.steps[effect.step].undo is NONE_NEEDED or (not happened and self._missing(place, work, effect) == 0):
            return place
        if effect.only_settle:
            offsets = ((effect.step, True), *work.offsets)
            return place._replace(work=work._replace(offsets=offsets), standing=standing | {(effect.step, True)})
        return place._replace(standing=standing | {(effect.step, True)})

    def _missing(self, place: Place, work: Work, effect: Open) -> int:
        """How many steps of this operation before this one did nothing. Of more than one nothing new is learnt."""
        if effect.only_settle or not work.tells:
            return 0
        begun = [s.name for s in self.transitions[work.tells].steps[: work.begun] if s.undo is not NONE_NEEDED]
        still_open = {effect.step, *(each.step for each in work.open)}
        return sum((name, True) not in place.standing for name in begun if name not in still_open)

    def _completed(self, place: Place, work: Work, target: str) -> Place:
        past = Past(work.name, work.tells, work.back, self._for_good(work), work.took_back)
        standing = place.standing if work.tells else self._earlier(place.standing)
        return Place(target, standing=standing, past=past)

    # --- what is wrong

    def _find(self, kind: str, where: str, words: str, place: Place | None = None, last: str = "") -> None:
        if (kind, where, words) not in self.known:
            self.known.add((kind, where, words))
            path = self._path(place) if place else ()
            self.found.findings.append(Finding(self.process.name, kind, where, words, (*path, last) if last else path))

    def _path(self, place: Place) -> tuple[str, ...]:
        labels: list[str] = []
        here: Place | None = place
        while here is not None:
            here, label = self.came[here]
            labels.append(label)
        return tuple(label for label in reversed(labels) if label)

    def _judge(self, place: Place, offered: Offered) -> None:
        for name in offered.unconfirmed:
            self._find("unconfirmable", f"{name}", "others must confirm it, and nobody may", place)
        if self.full and any(action.name == "pause" for action in offered.by_action):
            paused = self._offered(place._replace(paused=True))  # nothing begins meanwhile, so nothing is played
            if not any(action.name == "resume" for action in paused.by_action):
                self._find("stuck", f"state {place.state}", "paused, and nobody can resume", place)
        self._judge_owner(place, offered)
        if place.work is None:
            self._judge_rest(place, offered)
        elif place.work.open:
            self._judge_steps(place, place.work, offered)
        self._judge_escalation(place, offered)

    def _judge_owner(self, place: Place, offered: Offered) -> None:
        """Whatever is unfinished has somebody who decides next, and that is somebody."""
        now = condition(offered.situation)
        owners: set[tuple[str, str | None]] = set()
        if now.name != "done" and now.step is None:
            owners.add((f"state {place.state}", now.recovery_owner))
        if place.work:
            owners |= {(f"step {each.step}", self._owner(each)) for each in place.work.open}
        for where, owner in sorted(owners, key=str):
            if owner not in self.somebody:
                self._find("ownerless", where, f"partly done, and nobody decides: there is no {owner}", place)

    def _judge_rest(self, place: Place, offered: Offered) -> None:
        state = self.states[place.state]
        moves = {a.name: who for a, who in offered.by_action.items() if a.kind == "transition"}
        if not state.final and not any(set(self.transitions[name].targets) - {place.state} for name in moves):
            words = "no transition that anybody may take leads out of it"
            self._find("no_way_out", f"state {place.state}", words, place)
        waited_for = Actor(state.waiting_on or "", frozenset({state.waiting_on or ""}))
        answers = (decide(offered.situation, waited_for, Action("transition", name)) for name in moves)
        if state.waiting_on and not any(answer.allowed for answer in answers):
            words = f"waits on {state.waiting_on}, who may take no transition here"
            self._find("waits_in_vain", f"state {place.state}", words, place)

    def _judge_steps(self, place: Place, work: Work, offered: Offered) -> None:
        """Every blocked step: some action goes on from there, short of stopping everything."""
        ways = {"retry", "skip", "mark_done", "undo"}
        for effect in work.open:
            if effect.state != "blocked":
                continue
            address = self._effect(effect).address
            on = [each for each in offered.by_action if each.name in ways and each.step in {None, address}]
            if not on and not any(each.kind == "transition" for each in offered.by_action):
                self._find("stuck", f"step {address}", f"blocked ({effect.cause}), and nobody can go on", place)

    def _judge_escalation(self, place: Place, offered: Offered) -> None:
        if not place.escalated:
            return
        role = offered.situation.escalated_to or ""
        acts = {a for a, who in offered.by_action.items() if role in who and a.name not in {"pause", "resume"}}
        if place.work is None:
            acts = {each for each in acts if each.kind == "transition"}
        if acts:
            self.answered.add(place.state)
        words = f"its deadline escalates to {role}, who may do nothing about it here"
        self.answers.setdefault(place.state, []).append((words, place))

    def _look_back(self, onward: dict[Place, list[Place]]) -> None:
        """What only the whole walk shows."""
        self._ends(onward)
        if not self.full:
            return
        for state, asked in self.answers.items():
            if state not in self.answered:
                self._find("deadline_without_consequence", f"state {state}", *asked[0])
        reached = {place.state for place in self.came}
        reached |= {self.process.force_cancel.pending}  # where nothing has to be taken back nobody sees it
        for name in self.states:
            if name not in reached:
                self._find("unreached", f"state {name}", "no case ever gets here")
        for transition in self.process.transitions:
            if transition.name not in self.taken:
                self._find("never_taken", f"transition {transition.name}", "nobody can ever take it")
        for role in self.process.roles:
            if role.name not in self.active:
                self._find("idle_role", f"role {role.name}", "nothing here takes it")

    def _ends(self, onward: dict[Place, list[Place]]) -> None:
        """From everywhere some end can be reached without stopping everything: final, or nobody owes anything."""
        good = {place for place in self.came if place.work is None and self._ended(place)}
        waiting = deque(good)
        while waiting:
            for before in onward.get(waiting.popleft(), ()):
                if before not in good:
                    good.add(before)
                    waiting.append(before)
        said = {each.where for each in self.found.findings if each.kind == "no_way_out"}
        for place in self.came:
            where = f"state {place.state}"
            if place not in good and where not in said:
                self._find("dead_end", where, "from here no end can be reached but by force_cancel", place)

    def _ended(self, place: Place) -> bool:
        state = self.states[place.state]
        return state.final or (state.waiting_on is None and not place.overdue)
