"""What holds up a case, a process or a partner."""

from datetime import datetime
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document


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
