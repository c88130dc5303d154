"""What people have added to a case, and what its steps have made."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from caseward.documents.parts import ActorDocument, Document, ReasonDocument


class AttachedDocument(Document):
    """A document of a case. Its content is at `href`, and never changes."""

    document_id: UUID
    kind: str
    name: str
    media_type: str
    size: int
    sha256: str
    state: Literal["uploaded", "validating", "accepted", "refused"]
    reasons: list[ReasonDocument]
    """Why it is refused."""
    pages: int | None
    replaced_by: UUID | None
    """The one that counts in its place."""
    by: ActorDocument
    uploaded_at: datetime
    href: str


class MadeDocument(Document):
    """What a step made. Its content is at `href`, and never changes."""

    effect_key: str
    step: str
    title: str
    name: str
    media_type: str
    size: int
    sha256: str
    standing: bool
    """False once it was taken back."""
    made_at: datetime | None
    href: str


class KindDocument(Document):
    """A kind of document, with whether this actor may add one now and why not."""

    kind: str
    title: str
    media_types: list[str]
    allowed: bool
    reasons: list[ReasonDocument]


class AttachedList(Document):
    """The documents of a case, the oldest first, those that were replaced included."""

    documents: list[AttachedDocument]
    kinds: list[KindDocument]
    fingerprint: str | None
    """Of those that count: an approval is bound to it."""
    made: list[MadeDocument] = []
    """What steps of the case have made, the oldest first."""
