"""What partners have called back."""

from datetime import datetime
from typing import Any
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document


class DismissalDocument(Document):
    """Who dismissed it, when and why."""

    by: ActorDocument
    at: datetime
    reason: str


class CallbackDocument(Document):
    """What a partner called back."""

    partner: str
    event_id: str
    effect_key: str
    case_id: UUID | None
    call: str | None
    outcome: str
    answer: dict[str, Any] | None
    error: dict[str, Any] | None
    parked: bool
    """Nothing here knows its key; it stays so when it is dismissed."""
    received_at: datetime
    used_at: datetime | None
    dismissed: DismissalDocument | None


class CallbackList(Document):
    """Callbacks, oldest first."""

    callbacks: list[CallbackDocument]


class CallbackReceipt(Document):
    """A callback is stored; `duplicate` where it was before."""

    event_id: str
    duplicate: bool
