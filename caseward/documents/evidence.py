"""A case to be kept, and to be verified without us."""

from datetime import datetime
from typing import Any

from caseward.documents.operation import OperationDocument
from caseward.documents.parts import Document


class SubjectRevision(Document):
    """The business data of a case as it was at a revision."""

    revision: int
    data: dict[str, Any]


class EvidenceEntry(Document):
    """An entry as its hash covers it."""

    number: int
    hash: str
    canonical: str
    """JSON with sorted keys and no spaces: exactly these characters, in UTF-8, are hashed."""


class EvidenceChain(Document):
    """How the entries hang together, so that nobody needs our code to check it."""

    rule: str
    genesis: str
    entries: int
    head: str


class EvidenceDocument(Document):
    """A case with all that happened to it, to be kept and to be verified without us."""

    format: str
    format_version: int
    exported_at: datetime
    exported_by: str
    case: dict[str, Any]
    subjects: list[SubjectRevision]
    operations: list[OperationDocument]
    timeline: list[EvidenceEntry]
    chain: EvidenceChain
