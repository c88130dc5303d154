"""What crosses the Temporal boundary: ids, names and small results, never personal data.

New fields get defaults, so that a worker of either version can read the other's payloads.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

SEARCH_ATTRIBUTES = ("CasewardState", "CasewardCondition", "CasewardRecoveryOwner", "CasewardBusinessKey")  # keywords
TASK_QUEUE = "caseward"  # no setting: a worker that listens elsewhere than the dispatcher sends is silence
PERFORM, OVERRIDE = "perform", "override"
LOAD, FINISH, PASS_DEADLINE, ADMIT, BLOCK, STEP_MISSING, TAKE_BACK = (
    "caseward.load",
    "caseward.finish",
    "caseward.pass_deadline",
    "caseward.admit_override",
    "caseward.block_operation",
    "caseward.step_missing",
    "caseward.take_back",
)


def workflow_id(process: str, case_id: object) -> str:
    """The id of the workflow that works for a case."""
    return f"{process}:{case_id}"


def activity_name(process: str, address: str) -> str:
    """The name of the activity of a step, or of its compensation (`address` is `{step}:undo`)."""
    return f"{process}.{address}"


@dataclass(frozen=True)
class CaseRef:
    """The input of a case's workflow."""

    process: str
    case_id: str
    business_key: str = ""


@dataclass(frozen=True)
class News:
    """How the case stands at a version: all that a workflow shows and times by."""

    version: int
    status: dict[str, Any]
    """The case document without subject, title and actions, and without the words of partners."""
    final: bool = False
    deadline_at: str | None = None
    visit: int = 0
    """The version at which the state was entered; a deadline belongs to one visit."""


@dataclass(frozen=True)
class Offset:
    """An effect to take back."""

    effect_key: str
    step: str
    item: str | None = None
    settled: bool = False
    """It is known to stand; otherwise what became of it comes first."""


@dataclass(frozen=True)
class Order:
    """An accepted operation, as much of it as the workflow needs."""

    operation_id: str
    kind: str
    name: str
    fence: int
    takes_over: bool
    story: bool = False
    """A story of this name is to be told; otherwise offsetting and finishing are all there is to do."""
    finished: bool = False
    """It was completed in its accepting transaction; only what it superseded has to end."""
    offsets: list[Offset] = field(default_factory=list[Offset])
    step: str | None = None
    item: str | None = None
    version: int = 0
    tells: str | None = None
    """The story to tell, where it is not the operation's own name: a replay's."""
    documents: list[str] = field(default_factory=list[str])
    """Ids of the case's documents that it was accepted over."""


@dataclass(frozen=True)
class Perform:
    """The dispatcher's signal: one or more operations of one case, or none for a mere wake."""

    orders: list[Order]
    news: News | None = None
    resync: bool = False
    """Whatever the run believes, forget it and read from Postgres: the reconciler found that it went astray."""
    again: bool = False
    """It may have been delivered before, and much may have happened since."""


@dataclass(frozen=True)
class StepCall:
    """The input of every step's activity."""

    process: str
    case_id: str
    operation_id: str
    fence: int
    step: str
    effect_key: str
    item: str | None = None
    direction: Literal["do", "undo"] = "do"
    settle_only: bool = False
    """The effect belongs to a superseded operation: find out what became of it, start nothing new."""


@dataclass(frozen=True)
class StepAnswer:
    """What stands after an activity; the workflow obeys it."""

    state: Literal["settled", "retrying", "waiting", "paused", "blocked", "superseded"]
    version: int = 0
    happened: bool = False
    """Settled, and the outside change stands."""
    result: dict[str, Any] | None = None
    delay: float | None = None
    """Seconds until the next attempt or poll."""
    news: News | None = None


@dataclass(frozen=True)
class FinishCall:
    """The input of the last activity of an operation."""

    process: str
    case_id: str
    operation_id: str
    fence: int
    to_state: str | None = None


@dataclass(frozen=True)
class FinishAnswer:
    """The operation's end, or what still stands in its way."""

    state: Literal["finished", "superseded", "blocked", "offsets"]
    version: int = 0
    offsets: list[Offset] = field(default_factory=list[Offset])
    news: News | None = None


@dataclass(frozen=True)
class TakeBackCall:
    """A story has come to where it takes back what earlier operations left standing of these steps."""

    process: str
    case_id: str
    operation_id: str
    fence: int
    steps: list[str]


@dataclass(frozen=True)
class TakeBackAnswer:
    """The effects to offset now, latest first."""

    state: Literal["offsets", "superseded"]
    version: int = 0
    offsets: list[Offset] = field(default_factory=list[Offset])
    news: News | None = None


@dataclass(frozen=True)
class BlockCall:
    """A story that can't go on."""

    process: str
    case_id: str
    operation_id: str
    fence: int
    cause: str
    message: str


@dataclass(frozen=True)
class LoadAnswer:
    """What a run that knows nothing needs to go on."""

    news: News
    order: Order | None = None
    fence: int = 0
    """The case's own; nothing higher was ever accepted."""


@dataclass(frozen=True)
class DeadlineCall:
    """A state's deadline may have passed."""

    process: str
    case_id: str
    visit: int


@dataclass(frozen=True)
class AdmitCall:
    """An override that came by a Temporal signal or update, with the key its workflow gave it."""

    process: str
    case_id: str
    key: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class AdmitAnswer:
    """The accepted operation, or the refusal as a problem."""

    accepted: bool
    operation_id: str | None = None
    problem: dict[str, Any] | None = None
    proposed: bool = False
    """Accepted as a proposal: others must confirm it."""
