"""The language of processes: what a business declares, as data."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from caseward.errors import DeclarationInvalid

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
ENGINEERING = "engineering"  # owns what only code can mend
OPERATOR, SENIOR_OPERATOR, AUDITOR = "operator", "senior_operator", "auditor"
ENGINE_ROLES = frozenset({OPERATOR, SENIOR_OPERATOR, AUDITOR})
RESERVED_TRANSITIONS = frozenset({"retry", "skip", "mark_done", "undo", "replay", "pause", "resume", "force_cancel"})
CLAIMS = frozenset({"claim", "unclaim"})
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
class Circumstance:
    """What may be so of a subject, and its words for people: "an amount above 10,000"."""

    of: Callable[[Any], bool]
    words: str


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """How many others must confirm what one person asks for, before it is accepted."""

    by: int
    """So many different people."""
    roles: frozenset[str]
    """Who may confirm, and decline."""
    expires: timedelta = timedelta(days=1)
    """How long a proposal waits for them."""
    groups: frozenset[str] = frozenset()
    """Each of these roles must be among those in which people confirm; the others are anybody's."""
    proposer_counts: bool = False
    """Whoever proposes it and has one of the roles is one of those people."""
    when: Circumstance | None = None
    """Only where this is so of the case's subject, and for transitions alone; always where None."""


class Finding(Strict):
    """One thing that speaks against a document: a stable code, a sentence for people."""

    code: str
    message: str


class Verdict(Strict):
    """What looking at a document came to."""

    accepted: bool
    findings: tuple[Finding, ...] = ()
    pages: int | None = None
    """None where nobody could tell."""


@dataclass(frozen=True)
class Retry:
    """How long to wait after each failed attempt; after the last wait the step's `exhausted` applies."""

    waits: tuple[timedelta, ...]


# A short burst rides out a hiccup while people watch, the longer waits a restart of the partner (2 min 1 s in all);
# what is still failing then needs a person, who can always say `retry`.
PATIENT = Retry(waits=tuple(timedelta(seconds=s) for s in (0.5, 1, 2, 4, 8, 15, 30, 60)))


@dataclass(frozen=True)
class Made:
    """A content that a step makes: its result names it by `sha256` and `size`, and the object store has it."""

    title: str
    media_type: str


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
    each: bool = field(default=False, kw_only=True)
    """Stories tell it by `self.each`, once for every item, of which there may be none."""
    makes: Made | None = field(default=None, kw_only=True)
    """Whoever sees the case may take it away."""

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
class Instant:
    """An instant that a subject names, and its words for people: "the arrival"."""

    of: Callable[[Any], datetime]
    words: str


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """How long a case may stay in a state, and what follows. A pending state's runs while its transition does."""

    after: timedelta
    then: Escalate | Take | Unwind | Block
    counted_from: Instant | None = None
    """From when `after` counts; from the entry into the state where None, and once somebody gave it time again."""


@dataclass(frozen=True)
class State:
    """Where the business stands."""

    name: str
    title: str
    meaning: str
    """One sentence for the people whose case it is."""
    waiting_on: str | None = field(default=None, kw_only=True)
    """The role that owes the next move; None where nobody owes one."""
    claimable_by: frozenset[str] = field(default=frozenset(), kw_only=True)
    """Who may claim a case here: what these roles do is the claimant's alone then, until the case leaves the state."""
    deadline: Deadline | None = field(default=None, kw_only=True)
    final: bool = field(default=False, kw_only=True)
    """The workflow closes here and the business key is free again; only a reopening leads out."""

    @property
    def unclaimable_by(self) -> frozenset[str]:
        """Who may end somebody else's claim: operators, and whom the deadline calls."""
        called = {self.deadline.then.role} if self.deadline and isinstance(self.deadline.then, Escalate) else set[str]()
        return frozenset({OPERATOR, SENIOR_OPERATOR, *called})


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
    undoes: tuple[Step[Any], ...] = field(default=(), kw_only=True)
    """Steps of which its story takes back, by `self.undo`, what earlier operations left standing."""
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

    @property
    def told(self) -> bool:
        """It has a story, in which something outside is done or taken back."""
        return bool(self.steps or self.undoes)


@dataclass(frozen=True)
class DocumentKind:
    """A kind of document that people add to a case."""

    name: str
    title: str
    roles: frozenset[str] = field(kw_only=True)
    """Who may add one."""
    states: frozenset[str] = field(kw_only=True)
    """The states at rest in which it is taken."""
    media_types: frozenset[str] = field(default=frozenset({"application/pdf"}), kw_only=True)
    """What its content may be; nobody's word counts for that but the content's own."""
    most: int = field(default=20, kw_only=True)
    """So many may count at a time; one that was replaced does not."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a case: which are taken, and what looks at them."""

    kinds: tuple[DocumentKind, ...]
    checked_by: Step[Verdict]
    """The step that looks at one, told for each: until then a document is only uploaded."""

    def kind(self, name: str) -> DocumentKind | None:
        """The kind of this name, or None."""
        return next((kind for kind in self.kinds if kind.name == name), None)


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
    documents: Documents | None = field(default=None, kw_only=True)
    """None where its cases take none."""

    @property
    def path(self) -> str:
        """The name as it stands in URLs."""
        return hyphenated(self.name)

    @property
    def opening(self) -> Transition:
        """The transition that starts a case."""
        return next(transition for transition in self.transitions if transition.opens)

    @cached_property
    def steps(self) -> Mapping[str, Step[Any]]:
        """Every step by its name."""
        return {step.name: step for transition in self.transitions for step in transition.steps}

    @property
    def claimable(self) -> bool:
        """Somebody may claim its cases, in some state."""
        return any(state.claimable_by for state in self.states)

    @cached_property
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


def team_title(name: str) -> str:
    """What people call a team, at the beginning of a sentence."""
    return name.replace("_", " ").capitalize()


def hyphenated(name: str) -> str:
    """A name as it stands in a URL."""
    return name.replace("_", "-")


class Catalogue(Mapping[str, Process]):
    """The processes that run here, by name; raises `DeclarationInvalid` with every fault it finds."""

    def __init__(self, processes: Iterable[Process], *, limits: Mapping[str, int] | None = None) -> None:
        from caseward.checking.explore import glance  # noqa: PLC0415 - they speak this module's language
        from caseward.faults import faults  # noqa: PLC0415

        listed = tuple(processes)
        self.limits: Mapping[str, int] = dict(limits or {})
        """By partner: how many requests a second it takes from our bulk runs, all of them together."""
        doubled = [f"{name}: declared twice" for name, n in Counter(p.name for p in listed).items() if n > 1]
        found = doubled + [fault for process in listed for fault in faults(process) or map(str, glance(process))]
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
