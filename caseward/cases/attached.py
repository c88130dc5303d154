"""A case's documents as they stand: which of them count, what an operation saw of them, what looking at one came to."""

import hashlib
from collections.abc import Iterable
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.locked import LockedCase
from caseward.db.tables import Effect, StoredDocument
from caseward.process import Verdict
from caseward.situation import LEFT_OUT, DocumentView

DocumentState = Literal["uploaded", "validating", "accepted", "refused"]


def document_view(row: StoredDocument) -> DocumentView:
    """The row as plain data."""
    return DocumentView(
        id=row.id, kind=row.kind, name=row.name, media_type=row.media_type, size=row.size, sha256=row.sha256
    )


async def counting(work: LockedCase) -> list[StoredDocument]:
    """The documents that were not replaced, the oldest first."""
    found = await work.session.scalars(
        select(StoredDocument)
        .where(StoredDocument.case_id == work.case.id, StoredDocument.replaced_by.is_(None))
        .order_by(StoredDocument.uploaded_at, StoredDocument.id)
    )
    # The database may not know yet what this very transaction has replaced.
    return [row for row in found if row.replaced_by is None]


async def of_ids(session: AsyncSession, ids: Iterable[str]) -> tuple[DocumentView, ...]:
    """These documents, the oldest first."""
    wanted = [UUID(each) for each in ids]
    if not wanted:
        return ()
    found = await session.scalars(
        select(StoredDocument)
        .where(StoredDocument.id.in_(wanted))
        .order_by(StoredDocument.uploaded_at, StoredDocument.id)
    )
    return tuple(document_view(row) for row in found)


def fingerprint_of(documents: Iterable[StoredDocument]) -> str:
    """What changes when any of them does."""
    lines = sorted(f"{document.id} {document.sha256}" for document in documents)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def what_it_saw(work: LockedCase, revision: int) -> dict[str, Any]:
    """For the timeline: the subject's revision and each document's hash; nothing where the case has no documents."""
    if work.case.documents is None:
        return {}
    seen = [{"id": str(row.id), "sha256": row.sha256} for row in await counting(work)]
    return {"subject_revision": revision, "documents": seen}


async def tell_verdict(work: LockedCase, effect: Effect) -> None:
    """What looking at a document came to is a line of its own in the timeline."""
    documents = work.process.documents
    if documents is None or effect.step != documents.checked_by.name or effect.item is None:
        return
    row = await work.session.get_one(StoredDocument, UUID(effect.item))
    verdict = Verdict.model_validate(effect.result)
    said = " ".join(finding.message for finding in verdict.findings)
    kind = "document.accepted" if verdict.accepted else "document.refused"
    work.entry(kind, effect=effect, name=row.name, document_id=effect.item, sha256=row.sha256, findings=said)


def state_of(effect: Effect | None) -> tuple[DocumentState, Verdict | None]:
    """A document's state, from the latest effect that looked at it."""
    if effect is None:
        return "uploaded", None
    if effect.state != "settled":
        return "validating", None
    if effect.result is None or effect.decision in LEFT_OUT:
        return "uploaded", None
    verdict = Verdict.model_validate(effect.result)
    return "accepted" if verdict.accepted else "refused", verdict
