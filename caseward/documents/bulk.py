"""Bulk recovery: what is blocked alike, runs over it, and what became of each case."""

from datetime import datetime
from typing import Any
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document


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


class BulkChosen(Document):
    """That a run is over chosen cases of its group, and not over the whole of it."""

    cases: int
    """How many were chosen."""
    gone: int
    """How many of those were no longer blocked like the others, or only since then: they are left out."""
    sentence: str


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
    """None where cases were named without a group."""
    chosen: BulkChosen | None
    """None where nobody chose among the cases of the group."""
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
    title: str
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
