"""The language of processes: what a business declares, as data, and the faults found when it is loaded."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from caseward.errors import DeclarationInvalid

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
ENGINEERING = "engineering"  # owns what only code can mend
OPERATOR, SENIOR_OPERATOR, AUDITOR = "operator", "senior_operator", "auditor"
ENGINE_ROLES = frozenset({OPERATOR, SENIOR_OPERATOR, AUDITOR})
RESERVED_TRANSITIONS = frozenset({"retry", "skip", "mark_done", "undo", "replay", "pause", "resume", "force_cancel"})
# What can wait for people; a pause that waited for confirmation would be none.
CONFIRMABLE = RESERVED_TRANSITIONS - {"pause", "resume"}
LONGEST_PROPOSAL = timedelta(days=366)  # beyond that it is another decision
# What stands behind /v1/ already, where a process has its address.
RESERVED_PROCESSES = frozenset(
    {"cases", "operations", "processes", "schemas", "pauses", "bulk", "outbox", "partners", "callbacks", "me"}
)

R = TypeVar("R", bound=BaseModel)


class Strict(BaseModel):
    """What comes from outside: unknown fields are refused, nothing is coerced silently, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Nothing(Strict):
    """No fields: the result of a step that answers nothing, the input of a transition that asks for nothing."""


class Undo(Enum):
    """Why a step has no compensation."""

    NONE_NEEDED = "none_needed"
    IMPOSSIBLE = "impossible"


NONE_NEEDED, IMPOSSIBLE = Undo.NONE_NEEDED, Undo.IMPOSSIBLE

Exhausted = Literal["block", "undo", "proceed"]


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """How many others must confirm what one person asks for, before it is accepted."""

    by: int
    """So many different people."""
    roles: frozenset[str]
    """Who may confirm, and decline."""
    expires: timedelta = timedelta(days=1)
    """How long a proposal waits for them."""
    proposer_counts: bool = False
    """Whoever proposes it and has one of the roles is one of those people."""


@dataclass(frozen=True)
class Retry:
    """How long to wait after each failed attempt; after the last wait the step's `exhausted` applies."""

    waits: tuple[timedelta, ...]


# A short burst rides out a hiccup while people watch, the longer waits a restart of the partner (2 min 1 s in all);
# what is still failing then needs a person, who can always say `retry`.
PATIENT = Retry(waits=tuple(timedelta(seconds=s) for s in (0.5, 1, 2, 4, 8, 15, 30, 60)))


@dataclass(frozen=True)
class Step(Generic[R]):
    """One named stage of a story, with the one outside change it intends."""

    name: str
    title: str
    partner: str = field(kw_only=True)
    result: type[R] = field(kw_only=True)
    """The story's type for it, the schema of `mark_done`, and the activity's return type."""
    undo: str | Undo = field(kw_only=True)
    """Title of its compensation, or why there is none."""
    owner: str | None = field(default=None, kw_only=True)
    """Recovery owner; the process's own where None."""
    skip_roles: frozenset[str] = field(default=frozenset({OPERATOR, SENIOR_OPERATOR}), kw_only=True)
    """Who may leave it out or mark it done; empty forbids leaving it out, and senior operators may mark it done."""
    skip_confirmation: Confirmation | None = field(default=None, kw_only=True)
    """Who must confirm that it, or its compensation, is left out or marked done; None asks nobody."""
    exhausted: Exhausted = field(default="block", kw_only=True)
    retry: Retry = field(default=PATIENT, kw_only=True)
    answer_within: timedelta = field(default=timedelta(hours=1), kw_only=True)
    """How long a partner that acknowledged may take, before `exhausted` applies."""

    @property
    def compensable(self) -> bool:
        """A compensation is declared."""
        return isinstance(self.undo, str)


@dataclass(frozen=True)
class Escalate:
    """When the deadline passes, the state waits on this role."""

    role: str


@dataclass(frozen=True)
class Take:
    """When the deadline passes, the system takes this transition."""

    transition: str


@dataclass(frozen=True)
class Unwind:
    """When the deadline passes, the system undoes the operation in flight, or the latest; where it can't, it blocks."""


@dataclass(frozen=True)
class Block:
    """When the deadline passes, the case is blocked until somebody moves it or says `retry`; work under way goes on."""

    owner: str | None = None
    """The team that decides; the process's own where None."""


UNDO, BLOCK = Unwind(), Block()


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """How long a case may stay in a state, and what follows. A pending state's runs while its transition does."""

    after: timedelta
    then: Escalate | Take | Unwind | Block


@dataclass(frozen=True)
class State:
    """Where the business stands."""

    name: str
    title: str
    meaning: str
    """One sentence for the people whose case it is."""
    waiting_on: str | None = field(default=None, kw_only=True)
    """The role that owes the next move; None where nobody owes one."""
    deadline: Deadline | None = field(default=None, kw_only=True)
    final: bool = field(default=False, kw_only=True)
    """The workflow closes here and the business key is free again; only a reopening leads out."""


@dataclass(frozen=True)
class Role:
    """In what capacity somebody acts."""

    name: str
    title: str


@dataclass(frozen=True)
class Transition:
    """A named business move. One without `source` opens the case."""

    name: str
    title: str
    to: str | tuple[str, ...] = field(kw_only=True)
    """The target state; several where the story returns which one."""
    roles: frozenset[str] = field(kw_only=True)
    source: frozenset[str] = field(default=frozenset(), kw_only=True)
    pending: str | None = field(default=None, kw_only=True)
    """The state while steps run or what was superseded is offset."""
    steps: tuple[Step[Any], ...] = field(default=(), kw_only=True)
    input: type[BaseModel] = field(default=Nothing, kw_only=True)
    revise: Callable[[Any, Any], BaseModel] | None = field(default=None, kw_only=True)
    """From (subject, input) to the subject's next revision."""
    undone: str | None = field(default=None, kw_only=True)
    """The state after an undo; the one it came from where None."""
    four_eyes: frozenset[str] = field(default=frozenset(), kw_only=True)
    """Whoever took one of these transitions in this case may not take this one, nor confirm it."""
    confirmation: Confirmation | None = field(default=None, kw_only=True)
    """Who must confirm it before it is accepted; None asks nobody."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Every state this may lead to."""
        return (self.to,) if isinstance(self.to, str) else self.to

    @property
    def opens(self) -> bool:
        """It starts a case."""
        return not self.source


@dataclass(frozen=True, kw_only=True)
class ForceCancel:
    """Where `force_cancel` leads, and the state while it offsets."""

    pending: str
    to: str


@dataclass(frozen=True)
class Process:
    """A kind of business work, declared once."""

    name: str
    title: str
    subject: type[BaseModel] = field(kw_only=True)
    headline: Callable[[Any], str] = field(kw_only=True)
    """From the subject to a case's title."""
    owner: str = field(kw_only=True)
    """The team that decides where no step names another."""
    teams: frozenset[str] = field(kw_only=True)
    """Every team that may own a recovery here."""
    roles: tuple[Role, ...] = field(kw_only=True)
    states: tuple[State, ...] = field(kw_only=True)
    transitions: tuple[Transition, ...] = field(kw_only=True)
    force_cancel: ForceCancel = field(kw_only=True)
    confirmations: Mapping[str, Confirmation] = field(default_factory=dict[str, Confirmation], kw_only=True)
    """By override: who must confirm it on every case; a step's own `skip_confirmation` goes first."""

    @property
    def path(self) -> str:
        """The name as it stands in URLs."""
        return hyphenated(self.name)

    @property
    def opening(self) -> Transition:
        """The transition that starts a case."""
        return next(transition for transition in self.transitions if transition.opens)

    @property
    def steps(self) -> Mapping[str, Step[Any]]:
        """Every step by its name."""
        return {step.name: step for transition in self.transitions for step in transition.steps}

    @property
    def pending_states(self) -> frozenset[str]:
        """The states in which work is under way."""
        pending = {transition.pending for transition in self.transitions if transition.pending}
        return frozenset(pending | {self.force_cancel.pending})

    def state(self, name: str) -> State:
        """The state of this name."""
        return next(state for state in self.states if state.name == name)

    def transition(self, name: str) -> Transition | None:
        """The transition of this name, or None."""
        return next((transition for transition in self.transitions if transition.name == name), None)

    def role_title(self, name: str) -> str:
        """What people call the role."""
        return next((role.title for role in self.roles if role.name == name), name.replace("_", " "))

    def skip_confirmation(self, step: Step[Any] | None, override: str = "skip") -> Confirmation | None:
        """Who must confirm that a step is left out, or marked done, which without a word of its own is the same."""
        if step is not None and step.skip_confirmation is not None:
            return step.skip_confirmation
        return self.confirmations.get(override) or self.confirmations.get("skip")

    def has_code_for(self, step: str, direction: Literal["do", "undo"]) -> bool:
        """An activity stands behind it: a step that was declared once, or a compensation, may be no more."""
        declared = self.steps.get(step)
        return declared is not None and not (direction == "undo" and declared.undo is NONE_NEEDED)

    def owner_of(self, step: Step[Any]) -> str:
        """Who decides when this step is half done."""
        return step.owner or self.owner

    def visible_to(self, roles: Iterable[str]) -> bool:
        """Somebody with these roles may see the cases."""
        return bool(set(roles) & (ENGINE_ROLES | {role.name for role in self.roles}))


def hyphenated(name: str) -> str:
    """A name as it stands in a URL."""
    return name.replace("_", "-")


class Catalogue(Mapping[str, Process]):
    """The processes that run here, by name; raises `DeclarationInvalid` with every fault it finds."""

    def __init__(self, processes: Iterable[Process], *, limits: Mapping[str, int] | None = None) -> None:
        listed = tuple(processes)
        self.limits: Mapping[str, int] = dict(limits or {})
        """By partner: how many requests a second it takes from our bulk runs, all of them together."""
        doubled = [f"{name}: declared twice" for name, n in Counter(p.name for p in listed).items() if n > 1]
        found = doubled + [fault for process in listed for fault in faults(process)]
        partners = {step.partner for process in listed for step in process.steps.values()}
        found += [f"limits: no step has the partner {name}" for name in self.limits if name not in partners]
        found += [f"limits: {name} takes {limit} a second" for name, limit in self.limits.items() if limit < 1]
        if found:
            raise DeclarationInvalid(found)
        self._processes = {process.name: process for process in listed}

    def __getitem__(self, name: str) -> Process:
        return self._processes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._processes)

    def __len__(self) -> int:
        return len(self._processes)


def faults(process: Process) -> list[str]:
    """What is wrong with a declaration: each fault says where and what. An empty list is a sound process."""
    found = [f"{process.name}: {fault}" for fault in _name_faults(process)]
    if not found:  # the rest looks names up
        found = [
            f"{process.name}: {fault}"
            for check in (
                _transition_faults,
                _step_faults,
                _state_faults,
                _confirmation_faults,
                _reachability_faults,
            )
            for fault in check(process)
        ]
    return found


def _name_faults(process: Process) -> Iterator[str]:
    kinds: dict[str, list[str]] = {
        "state": [state.name for state in process.states],
        "transition": [transition.name for transition in process.transitions],
        "role": [role.name for role in process.roles],
    }
    for kind, names in kinds.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{kind} {name} is declared twice"
            if not NAME.fullmatch(name):
                yield f"{kind} {name!r}: names are lower case words joined by _"
    if not NAME.fullmatch(process.name):
        yield "a process name is lower case words joined by _"
    if process.name in RESERVED_PROCESSES:
        yield "the name stands for the API's own addresses"
    for name in sorted(set(kinds["role"]) & ENGINE_ROLES):
        yield f"role {name} is the engine's own"
    for name in sorted(set(kinds["transition"]) & RESERVED_TRANSITIONS):
        yield f"transition {name} has the name of an override"
    known = set(kinds["state"])
    for where, name in _state_mentions(process):
        if name not in known:
            yield f"{where} names the unknown state {name}"
    openings = [transition.name for transition in process.transitions if transition.opens]
    if len(openings) != 1:
        yield f"exactly one transition opens a case (has no source), here: {', '.join(openings) or 'none'}"


def _state_mentions(process: Process) -> Iterator[tuple[str, str]]:
    yield "force_cancel", process.force_cancel.pending
    yield "force_cancel", process.force_cancel.to
    for transition in process.transitions:
        where = f"transition {transition.name}"
        for name in (*sorted(transition.source), *transition.targets, transition.pending, transition.undone):
            if name is not None:
                yield where, name


def _transition_faults(process: Process) -> Iterator[str]:
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    names = {transition.name for transition in process.transitions}
    pending = process.pending_states
    for transition in process.transitions:
        where = f"transition {transition.name}"
        if not transition.roles:
            yield f"{where}: nobody may take it (no roles)"
        for role in sorted(transition.roles - roles):
            yield f"{where}: unknown role {role}"
        for name in sorted(transition.four_eyes - names):
            yield f"{where}: four_eyes names the unknown transition {name}"
        if not transition.targets:
            yield f"{where}: leads nowhere"
        for name in transition.targets:
            if name in pending:
                yield f"{where}: leads to {name}, which is a pending state"
        if transition.steps and not transition.pending:
            yield f"{where}: has steps but no pending state to be in while they run"
        if not transition.pending and transition.source & pending:
            yield f"{where}: supersedes work, so it needs a pending state to be in while that is offset"
        if transition.pending and not transition.steps and not transition.source & pending:
            yield f"{where}: has the pending state {transition.pending} but nothing to do in it"
        if not transition.steps and len(transition.targets) > 1:
            yield f"{where}: has several targets but no step to decide between them"
        if transition.opens and transition.steps and not transition.undone:
            yield f"{where}: opens the case with steps, so it must say which state an undo leads to"
        if transition.undone in pending:
            yield f"{where}: an undo would lead to {transition.undone}, which is a pending state"
        if transition.revise and transition.input is Nothing:
            yield f"{where}: revises the subject but asks for no input"
    if process.force_cancel.pending in {target for t in process.transitions for target in t.targets}:
        yield f"force_cancel: {process.force_cancel.pending} is a target, not a pending state"
    if not process.state(process.force_cancel.to).final:
        yield f"force_cancel: {process.force_cancel.to} is not final"


def _step_faults(process: Process) -> Iterator[str]:
    seen: dict[str, Step[Any]] = {}
    teams = process.teams | {ENGINEERING}
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    if process.owner not in teams:
        yield f"owner {process.owner} is not one of its teams"
    for transition in process.transitions:
        doubled = [name for name, n in Counter(step.name for step in transition.steps).items() if n > 1]
        for name in doubled:
            yield f"transition {transition.name}: step {name} stands twice"
        for step in transition.steps:
            where = f"step {step.name}"
            if seen.setdefault(step.name, step) is not step:
                yield f"{where}: two different steps have this name"
            if not NAME.fullmatch(step.name):
                yield f"{where}: names are lower case words joined by _"
            if process.owner_of(step) not in teams:
                yield f"{where}: owner {process.owner_of(step)} is not one of the process's teams"
            for role in sorted(step.skip_roles - roles):
                yield f"{where}: unknown role {role} may skip it"
            if step.exhausted == "undo" and step.undo is IMPOSSIBLE:
                yield f"{where}: exhausted means undo, but it can't be undone"
            if not NAME.fullmatch(step.partner):
                yield f"{where}: partner {step.partner!r} is not a name"


def _state_faults(process: Process) -> Iterator[str]:
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    sources = {name for transition in process.transitions for name in transition.source}
    for state in process.states:
        where = f"state {state.name}"
        pending = state.name in process.pending_states
        if state.waiting_on is not None and state.waiting_on not in roles:
            yield f"{where}: waits on the unknown role {state.waiting_on}"
        if pending and (state.final or state.waiting_on):
            yield f"{where}: is pending, so it can be neither final nor waiting on somebody"
        if not pending and not state.final and state.name not in sources:
            yield f"{where}: nobody can leave it, and it is not final"
        if state.final and (state.deadline or state.waiting_on):
            yield f"{where}: is final, so nobody can owe a move there"
        if state.deadline:
            yield from (f"{where}: {fault}" for fault in _deadline_faults(process, state, state.deadline))


def _deadline_faults(process: Process, state: State, deadline: Deadline) -> Iterator[str]:
    if deadline.after <= timedelta(0):
        yield "its deadline is not in the future"
    if state.name in process.pending_states - {transition.pending for transition in process.transitions}:
        yield "its deadline can't act: only what force_cancel takes back is under way there"
    match deadline.then:
        case Escalate(role):
            if role not in {known.name for known in process.roles} | ENGINE_ROLES:
                yield f"its deadline escalates to the unknown role {role}"
            if state.waiting_on is None and state.name not in process.pending_states:
                yield "its deadline escalates, but the state waits on nobody"
        case Take(name):
            transition = process.transition(name)
            if transition is None:
                yield f"its deadline takes the unknown transition {name}"
            elif state.name not in transition.source:
                yield f"its deadline takes {name}, which does not start here"
            elif _requires_input(transition.input):
                yield f"its deadline takes {name}, which needs input that nobody gives"
            elif transition.confirmation is not None:
                yield f"its deadline takes {name}, which people must confirm"
            elif state.name == transition.pending:
                yield f"its deadline takes {name}, which would stay here"
        case Unwind():
            if process.confirmations.get("undo") is not None:
                yield "its deadline undoes, which people must confirm"
            leading = [t for t in process.transitions if state.name in {t.pending, *t.targets}]
            for transition in leading:
                if transition.opens and not transition.undone:
                    yield f"its deadline undoes {transition.name}, which can't be undone: it says not where to"
                elif state.name in (transition.undone, *transition.source):
                    yield f"its deadline undoes {transition.name}, which would come back here"
        case Block(owner):
            if owner is not None and owner not in process.teams | {ENGINEERING}:
                yield f"its deadline blocks for {owner}, which is not one of the process's teams"


def _requires_input(model: type[BaseModel]) -> bool:
    return any(declared.is_required() for declared in model.model_fields.values())


def _confirmation_faults(process: Process) -> Iterator[str]:
    declared = [(f"transition {t.name}", t.confirmation) for t in process.transitions]
    declared += [(f"step {step.name}", step.skip_confirmation) for step in process.steps.values()]
    declared += [(f"override {name}", confirmation) for name, confirmation in process.confirmations.items()]
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    for where, confirmation in declared:
        if confirmation is None:
            continue
        if confirmation.by < 1:
            yield f"{where}: a confirmation by {confirmation.by} people is none"
        if not confirmation.roles:
            yield f"{where}: nobody may confirm it (no roles)"
        for role in sorted(confirmation.roles - roles):
            yield f"{where}: unknown role {role} may confirm it"
        if not timedelta(0) < confirmation.expires <= LONGEST_PROPOSAL:
            yield f"{where}: a proposal stands for more than nothing and at most {LONGEST_PROPOSAL.days} days"
    if process.opening.confirmation is not None:
        yield f"transition {process.opening.name}: opens the case, so there is nothing yet to confirm it on"
    for name in sorted(set(process.confirmations) - CONFIRMABLE):
        yield f"override {name}: is none that can wait for confirmation"
    yield from _unconfirmed_consequences(process)


def _unconfirmed_consequences(process: Process) -> Iterator[str]:
    """What the engine would do by declaration although the same declaration says that people must confirm it."""
    for step in process.steps.values():
        if step.exhausted == "proceed" and process.skip_confirmation(step) is not None:
            yield f"step {step.name}: exhausted means going on without it, which people must confirm"
        if step.exhausted == "undo" and "undo" in process.confirmations:
            yield f"step {step.name}: exhausted means undo, which people must confirm"


def _reachability_faults(process: Process) -> Iterator[str]:
    reached: set[str] = set()
    waiting = [process.opening, *(t for t in process.transitions if not t.opens)]
    grew = True
    while grew:
        grew = False
        for transition in waiting:
            if transition.opens or transition.source & reached:
                ends = {*transition.targets, transition.pending, transition.undone} - {None}
                grew = grew or not ends <= reached
                reached |= cast("set[str]", ends)
    reached |= {process.force_cancel.pending, process.force_cancel.to}  # an operator can always get here
    for state in process.states:
        if state.name not in reached:
            yield f"state {state.name}: can't be reached"
