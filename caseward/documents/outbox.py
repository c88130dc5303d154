"""Messages of the outbox."""

from datetime import datetime
from uuid import UUID

from caseward.documents.parts import Document


class MessageDocument(Document):
    """An outbox message."""

    message_id: int
    destination: str
    case_id: UUID
    operation_id: UUID | None
    parked: bool
    tries: int
    error: str | None
    created_at: datetime


class MessageList(Document):
    """Outbox messages, oldest first; `next` is the address of the following page."""

    messages: list[MessageDocument]
    next: str | None = None
