"""Adding documents to a case, and reading them back. Their content goes another way: by the object store."""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from caseward.cases.attached import counting, document_view, fingerprint_of, state_of
from caseward.cases.commands import check_version
from caseward.cases.envelope import Envelope, digest_of, kept_under_its_key, said_before
from caseward.cases.locked import LockedCase, lock_case
from caseward.cases.looking_back import whole_situation
from caseward.cases.queries import read_case, snapshot, visible_case
from caseward.db.tables import Case, Effect, StoredDocument
from caseward.documents.attached import AttachedDocument, AttachedList, KindDocument, MadeDocument
from caseward.documents.parts import ActorDocument, ReasonDocument
from caseward.errors import (
    ActionNotAllowed,
    CaseNotFound,
    DocumentNotFound,
    IdempotencyKeyReused,
    InputInvalid,
    Reason,
)
from caseward.policy import decide_document
from caseward.process import Catalogue, DocumentKind, Process
from caseward.situation import Actor, DocumentView


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """A content that the object store has already."""

    name: str
    media_type: str
    size: int
    sha256: str


async def expect_document(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, kind: str, envelope: Envelope
) -> DocumentKind:
    """See before its content is read that it may be added. Decides nothing: the command itself decides, under the lock.

    Raises CaseNotFound, InputInvalid, ActionNotAllowed.
    """
    await snapshot(session)
    case = await visible_case(session, catalogue, case_id, envelope.actor)
    declared = _kind(catalogue[case.process], kind)
    if not await _came_before(session, envelope):
        now = await whole_situation(await read_case(session, catalogue, case))
        decision = decide_document(now, envelope.actor, declared)
        if not decision.allowed:
            raise ActionNotAllowed(decision.reasons, state=case.state, version=case.version)
    return declared


async def add_document(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    case_id: UUID,
    kind: str,
    content: Uploaded,
    replaces: UUID | None,
    envelope: Envelope,
) -> UUID:
    """Add a document to a case, in the place of another where it replaces one; answers its id.

    Raises CaseNotFound, VersionStale, ActionNotAllowed, DocumentNotFound, InputInvalid, IdempotencyKeyReused.
    """
    digest = digest_of("document", str(case_id), kind, content.name, content.sha256, str(replaces))
    twin = await said_before(session, envelope, digest)
    if twin is not None:
        return twin.id
    work = await lock_case(session, catalogue, case_id)
    if not work.process.visible_to(envelope.actor.roles):
        raise CaseNotFound
    declared = _kind(work.process, kind)
    now = await whole_situation(work)
    check_version(work, envelope, now)
    decision = decide_document(now, envelope.actor, declared)
    if not decision.allowed:
        raise ActionNotAllowed(decision.reasons, state=work.case.state, version=work.case.version)
    count = await counting(work)
    replaced = next((row for row in count if row.id == replaces and row.kind == kind), None)
    if replaces is not None and replaced is None:
        raise DocumentNotFound
    if replaced is None and sum(row.kind == kind for row in count) >= declared.most:
        message = f"{declared.title}: {declared.most} are here already; replace one of them."
        raise ActionNotAllowed(
            [Reason("too_many_documents", message)], state=work.case.state, version=work.case.version
        )
    added = StoredDocument(
        id=uuid7(),
        case_id=case_id,
        kind=kind,
        name=content.name,
        media_type=content.media_type,
        size=content.size,
        sha256=content.sha256,
        replaced_by=None,
        actor_id=envelope.actor.id,
        actor_role=decision.role,
        actor_via=envelope.actor.via,
        uploaded_at=work.now,
        idempotency_key=envelope.idempotency_key,
        content_digest=digest,
    )
    session.add(added)
    by = (envelope.actor, decision.role)
    if replaced is not None:
        replaced.replaced_by = added.id
        _say(work, replaced, declared, by, "document.replaced")
    _say(work, added, declared, by, "document.added")
    work.case.documents = fingerprint_of([row for row in count if row is not replaced] + [added])
    work.touch()
    return added.id


def _say(
    work: LockedCase, row: StoredDocument, kind: DocumentKind, by: tuple[Actor, str | None], entry_type: str
) -> None:
    told: dict[str, Any] = {
        "document_id": str(row.id),
        "sha256": row.sha256,
        "size": row.size,
        "media_type": row.media_type,
    }
    work.entry(entry_type, actor=by[0], role=by[1], title=kind.title, name=row.name, **told)


def _kind(process: Process, name: str) -> DocumentKind:
    kind = process.documents.kind(name) if process.documents else None
    if kind is None:
        kinds = ", ".join(each.name for each in process.documents.kinds) if process.documents else "none"
        message = f"{process.title} takes no document of this kind, but {kinds}."
        raise InputInvalid(message, errors=[{"field": "kind", "message": message}])
    return kind


async def _came_before(session: AsyncSession, envelope: Envelope) -> bool:
    """Something was added under this key; whether it is the same, only its content tells.

    Raises IdempotencyKeyReused where the key belongs to another kind of command.
    """
    found = await kept_under_its_key(session, envelope)
    if any(row.table != StoredDocument.__tablename__ for row in found):
        raise IdempotencyKeyReused
    return bool(found)


async def list_documents(session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, actor: Actor) -> AttachedList:
    """Every document of the case with its state, and which this actor may add now. Raises CaseNotFound."""
    await snapshot(session)
    case = await visible_case(session, catalogue, case_id, actor)
    process = catalogue[case.process]
    rows = await session.scalars(
        select(StoredDocument)
        .where(StoredDocument.case_id == case_id)
        .order_by(StoredDocument.uploaded_at, StoredDocument.id)
    )
    documents = rows.all()
    looked = await _looked_at(session, process, case)
    now = await whole_situation(await read_case(session, catalogue, case))
    kinds: list[KindDocument] = []
    for kind in process.documents.kinds if process.documents else ():
        decision = decide_document(now, actor, kind)
        reasons = [ReasonDocument(code=reason.code, message=reason.message) for reason in decision.reasons]
        kinds.append(
            KindDocument(
                kind=kind.name,
                title=kind.title,
                media_types=sorted(kind.media_types),
                allowed=decision.allowed,
                reasons=reasons,
            )
        )
    return AttachedList(
        documents=[_document(row, looked.get(str(row.id))) for row in documents],
        kinds=kinds,
        fingerprint=case.documents,
        made=[_made(process, effect) for effect in await _made_here(session, process, case)],
    )


async def _looked_at(session: AsyncSession, process: Process, case: Case) -> Mapping[str, Effect]:
    """By document: the latest effect that looked at it."""
    step = process.documents.checked_by.name if process.documents else ""
    found = await session.scalars(
        select(Effect)
        .where(Effect.case_id == case.id, Effect.step == step, Effect.item.is_not(None))
        .order_by(Effect.reserved_at, Effect.key)
    )
    return {effect.item or "": effect for effect in found}


def _document(row: StoredDocument, looked: Effect | None) -> AttachedDocument:
    state, verdict = state_of(looked)
    findings = verdict.findings if verdict else ()
    return AttachedDocument(
        document_id=row.id,
        kind=row.kind,
        name=row.name,
        media_type=row.media_type,
        size=row.size,
        sha256=row.sha256,
        state=state,
        reasons=[ReasonDocument(code=finding.code, message=finding.message) for finding in findings],
        pages=verdict.pages if verdict else None,
        replaced_by=row.replaced_by,
        by=ActorDocument(id=row.actor_id, role=row.actor_role, via=row.actor_via),
        uploaded_at=row.uploaded_at,
        href=f"/v1/cases/{row.case_id}/documents/{row.id}",
    )


async def find_document(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, document_id: UUID, actor: Actor
) -> DocumentView:
    """What is known of one document. Raises CaseNotFound, DocumentNotFound."""
    await visible_case(session, catalogue, case_id, actor)
    row = await session.get(StoredDocument, document_id)
    if row is None or row.case_id != case_id:
        raise DocumentNotFound
    return document_view(row)


async def find_made(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, effect_key: str, actor: Actor
) -> Uploaded:
    """A content that a step of the case made. Raises CaseNotFound, DocumentNotFound."""
    case = await visible_case(session, catalogue, case_id, actor)
    process = catalogue[case.process]
    for effect in await _made_here(session, process, case):
        if effect.key == effect_key:
            made = _made(process, effect)
            return Uploaded(name=made.name, media_type=made.media_type, size=made.size, sha256=made.sha256)
    raise DocumentNotFound


async def _made_here(session: AsyncSession, process: Process, case: Case) -> list[Effect]:
    steps = [name for name, step in process.steps.items() if step.makes is not None]
    if not steps:
        return []
    # A hash that somebody wrote down by hand is no way to a content that may be another case's.
    found = await session.scalars(
        select(Effect)
        .where(
            Effect.case_id == case.id,
            Effect.step.in_(steps),
            Effect.direction == "do",
            Effect.outcome == "succeeded",
            Effect.decision.is_distinct_from("marked_done"),
        )
        .order_by(Effect.reserved_at, Effect.key)
    )
    return [effect for effect in found if effect.result is not None]


def _made(process: Process, effect: Effect) -> MadeDocument:
    step, result = process.steps[effect.step], effect.result or {}
    title, media_type = (step.makes.title, step.makes.media_type) if step.makes else (step.title, "")
    return MadeDocument(
        effect_key=effect.key,
        step=effect.step,
        title=title,
        name=title + (mimetypes.guess_extension(media_type) or ""),
        media_type=media_type,
        size=result["size"],
        sha256=result["sha256"],
        standing=effect.standing,
        made_at=effect.settled_at,
        href=f"/v1/cases/{effect.case_id}/documents/made/{quote(effect.key, safe='')}",
    )
