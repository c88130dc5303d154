"""Documents of a case: added as a raw body, listed with their state, and given out to be saved, never to be shown."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.answers import etag
from api.deps import CurrentActor, Sealed, Session, Wired, Wiring, header_parameters
from api.responses import DOWNLOAD, ETAG, LOCATION, READING, Responses, problems, success
from api.routes_cases import Text
from caseward.cases.documents import (
    Uploaded,
    add_document,
    expect_document,
    find_document,
    find_made,
    list_documents,
)
from caseward.cases.queries import get_standing
from caseward.documents.attached import AttachedDocument, AttachedList
from caseward.errors import DocumentNotFound
from caseward.situation import DocumentView

router = APIRouter(prefix="/v1/cases/{case_id}/documents", tags=["Documents"])

# No path, nothing that hides or reorders what stands beside it.
HIDDEN = r"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
FileName = Annotated[str, Field(min_length=1, max_length=200, pattern=rf"^[^/\\{HIDDEN}]+$")]
ANY_BODY: Mapping[str, Any] = {
    "required": True,
    "description": "The content itself, of any length up to the limit; what it is is found out from the content.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


class Adding(BaseModel):
    """What is added."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$", description="One of the `kinds`")]
    name: Annotated[FileName, Field(description="What the file is called")]
    replaces: Annotated[UUID | None, Field(description="The document in whose place it counts")] = None


@router.post(
    "",
    status_code=201,
    operation_id="add_document",
    responses={
        **success(201, "The document, added now or by the same command before", LOCATION, ETAG),
        **problems(400, 401, 403, 404, 409, 412, 413, 415, 422, 503),
    },
    openapi_extra={**header_parameters("Idempotency-Key", "If-Match"), "requestBody": ANY_BODY},
)
async def add(
    request: Request,
    response: Response,
    wiring: Wired,
    envelope: Sealed,
    case_id: UUID,
    wanted: Annotated[Adding, Query()],
) -> AttachedDocument:
    """Add a document to a case; it is looked at in the course of a transition."""
    async with wiring.database.transaction() as session:
        kind = await expect_document(session, wiring.catalogue, case_id=case_id, kind=wanted.kind, envelope=envelope)
    length = request.headers.get("content-length", "")
    content = await wiring.uploads.take_in(
        request.stream(), announced=int(length) if length.isdecimal() else None, name=wanted.name, kind=kind
    )
    async with wiring.command() as session:
        added = await add_document(
            session,
            wiring.catalogue,
            case_id=case_id,
            kind=wanted.kind,
            content=content,
            replaces=wanted.replaces,
            envelope=envelope,
        )
    async with wiring.database.transaction() as session:
        listed = await list_documents(session, wiring.catalogue, case_id=case_id, actor=envelope.actor)
        standing = await get_standing(session, case_id=case_id)
    document = next(each for each in listed.documents if each.document_id == added)
    response.headers["Location"], response.headers["ETag"] = document.href, etag(standing.etag)
    return document


@router.get("", operation_id="list_documents", responses=READING)
async def list_all(session: Session, wiring: Wired, actor: CurrentActor, case_id: UUID) -> AttachedList:
    """Every document with its state and why it is refused, and which kinds this actor may add now."""
    return await list_documents(session, wiring.catalogue, case_id=case_id, actor=actor)


DOWNLOADING: Responses = {
    200: {
        **success(200, "The content, as a download", DOWNLOAD)[200],
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    **READING,
}


@router.get("/{document_id}", operation_id="download_document", response_class=StreamingResponse, responses=DOWNLOADING)
async def download(wiring: Wired, actor: CurrentActor, case_id: UUID, document_id: UUID) -> StreamingResponse:
    """The content of one document, whatever came of looking at it.

    Whoever decides about the case has to see what was refused, and by whose mistake; a program that calls a document
    harmless or not is no reason to keep it from them. What it might do is held off by how it is given out.
    """
    async with wiring.database.transaction() as session:
        found = await find_document(session, wiring.catalogue, case_id=case_id, document_id=document_id, actor=actor)
    return await _to_be_saved(wiring, found)


@router.get("/made/{effect_key}", operation_id="download_made", response_class=StreamingResponse, responses=DOWNLOADING)
async def download_made(
    wiring: Wired, actor: CurrentActor, case_id: UUID, effect_key: Annotated[Text, Path()]
) -> StreamingResponse:
    """What a step of the case made, such as a certificate; also once it was taken back, which its document says."""
    async with wiring.database.transaction() as session:
        found = await find_made(session, wiring.catalogue, case_id=case_id, effect_key=effect_key, actor=actor)
    # The store says what was made under this key: a result alone is no way to a content that may be another case's.
    receipt = await wiring.uploads.objects.noted(effect_key)
    if receipt is None or receipt.get("answer", {}).get("sha256") != found.sha256:
        raise DocumentNotFound
    return await _to_be_saved(wiring, found)


async def _to_be_saved(wiring: Wiring, found: DocumentView | Uploaded) -> StreamingResponse:
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
        "Content-Length": str(found.size),
        "ETag": etag(found.sha256),
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(found.sha256)).decode()}:",
        "X-Content-Type-Options": "nosniff",
        # Should a browser show it all the same, it runs nothing and has no origin.
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    }
    pieces = await wiring.uploads.objects.stream(found.sha256)
    return StreamingResponse(pieces, media_type=found.media_type, headers=headers)
