"""One operation, from acceptance to outcome."""

from datetime import datetime
from typing import Any
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document
from caseward.documents.proposal import GivenDocument
from caseward.documents.steps import StepDocument


class Confirmations(Document):
    """How many confirming people are needed, and who has; all of it empty for what needed none."""

    needed: int = 0
    given: list[GivenDocument] = []
    declined: GivenDocument | None = None
    proposed_at: datetime | None = None
    expires_at: datetime | None = None


class OperationDocument(Document):
    """One operation, whole."""

    operation_id: UUID
    kind: str
    name: str
    case_id: UUID
    process: str
    state: str
    actor: ActorDocument
    reason: str | None
    input: dict[str, Any]
    from_state: str | None
    case_state: str
    to_state: str | None
    supersedes: UUID | None
    superseded_by: UUID | None
    acts_on: UUID | None
    step: str | None
    item: str | None
    confirmations: Confirmations
    plan: dict[str, Any] | None = None
    """Of a replay: what it reuses, offsets and runs, and which decisions it keeps."""
    recovery_owner: str | None
    blocked: dict[str, Any] | None
    steps: list[StepDocument]
    bulk_id: UUID | None = None
    accepted_at: datetime | None
    """None for what was only proposed."""
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
