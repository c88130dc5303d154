"""The timeline: append-only, numbered per case, each entry chained to the one before by its hash."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from caseward.db.tables import Case, Entry
from caseward.entries import SENTENCES
from caseward.evidence import GENESIS, canonical, linked
from caseward.situation import Actor


def new_entry(
    case: Case,
    entry_type: str,
    *,
    at: datetime,
    actor: Actor,
    role: str | None = None,
    reason: str | None = None,
    operation_id: UUID | None = None,
    effect_key: str | None = None,
    traceparent: str | None = None,
    data: dict[str, Any],
) -> Entry:
    """The next entry of a case; moves the case's number and chain head. Raises ValueError for an unknown type."""
    if entry_type not in SENTENCES:
        message = f"no timeline entry is called {entry_type}"
        raise ValueError(message)
    case.timeline_number += 1
    entry = Entry(
        case_id=case.id,
        number=case.timeline_number,
        type=entry_type,
        at=at,
        actor_id=actor.id,
        actor_role=role,
        actor_via=actor.via,
        reason=reason,
        operation_id=operation_id,
        effect_key=effect_key,
        traceparent=traceparent,
        data=data,
        hash=b"",
    )
    entry.hash = chained(case.timeline_head, entry)
    case.timeline_head = entry.hash
    return entry


def chained(previous: bytes, entry: Entry) -> bytes:
    """The entry's hash behind the entry with the hash `previous`."""
    return linked(previous, canonical_text(entry))


def canonical_text(entry: Entry) -> str:
    """All that the entry's hash covers."""
    return canonical(
        {
            "case_id": str(entry.case_id),
            "number": entry.number,
            "type": entry.type,
            "at": entry.at.astimezone(UTC).isoformat(),
            "actor": [entry.actor_id, entry.actor_role, entry.actor_via],
            "reason": entry.reason,
            "operation_id": None if entry.operation_id is None else str(entry.operation_id),
            "effect_key": entry.effect_key,
            "traceparent": entry.traceparent,
            "data": entry.data,
        }
    )


def first_break(entries: list[Entry], head: bytes) -> int | None:
    """The number of the first entry that does not fit the chain, or None.

    `entries` is the whole timeline in order; a missing tail shows as a break behind the last one.
    """
    previous = GENESIS
    for expected, entry in enumerate(entries, start=1):
        if entry.number != expected or chained(previous, entry) != entry.hash:
            return expected
        previous = entry.hash
    return None if previous == head else len(entries) + 1
