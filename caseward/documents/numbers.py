"""How the business runs, in numbers."""

from datetime import datetime

from caseward.documents.parts import Document
from caseward.documents.pauses import PauseDocument


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
