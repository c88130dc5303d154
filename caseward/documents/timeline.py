"""The timeline of a case, in words."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document
from caseward.entries import sentence


class EntryDocument(Document):
    """One line of the timeline."""

    number: int
    type: str
    at: datetime
    sentence: str
    actor: ActorDocument
    reason: str | None
    operation_id: UUID | None
    effect_key: str | None
    data: dict[str, Any]
    hash: str


class Timeline(Document):
    """Entries in order; `next` is the address of the following page."""

    case_id: UUID
    entries: list[EntryDocument]
    next: str | None


def entry_sentence(entry_type: str, data: Mapping[str, Any]) -> str:
    """An entry in words; entries of a later version's types show as their type."""
    try:
        return sentence(entry_type, data)
    except KeyError:
        return entry_type
