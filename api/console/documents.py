"""Documents of a case: taken away as the API gives them out, and added by the page's own script.

The script sends the file as it is to the API's very code: the same limit, the same look at the content, the same words
where it is refused. What is added is bound to no version of the case, since it hides nothing that somebody saw; what it
replaces is named.
"""

from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, Path, Query, Request, Response
from starlette.exceptions import HTTPException

from api import routes_documents
from api.console.case import looked_at_by
from api.console.door import Operator, console_router, upload_router
from api.console.pages import page
from api.deps import Wired, get_envelope
from api.routes_cases import Text
from api.routes_documents import Adding
from caseward.cases.documents import list_documents
from caseward.cases.envelope import Envelope
from caseward.cases.queries import get_case
from caseward.documents.attached import AttachedDocument
from caseward.errors import DocumentNotFound

router, uploads = console_router(), upload_router()


@router.get("/console/cases/{case_id}/documents")
async def ask(
    request: Request,
    wiring: Wired,
    actor: Operator,
    case_id: UUID,
    kind: Annotated[str, Query(max_length=100)],
    replaces: UUID | None = None,
) -> Response:
    """The form that adds one, or why it can't be added now. Raises CaseNotFound, DocumentNotFound."""
    async with wiring.database.transaction() as session:
        case = await get_case(session, wiring.catalogue, case_id=case_id, actor=actor)
        listed = await list_documents(session, wiring.catalogue, case_id=case_id, actor=actor)
    wanted = next((each for each in listed.kinds if each.kind == kind), None)
    if wanted is None:
        raise HTTPException(404)
    counting = (each for each in listed.documents if each.kind == kind and each.replaced_by is None)
    replaced = next((each for each in counting if each.document_id == replaces), None)
    if replaces is not None and replaced is None:
        raise DocumentNotFound
    return page(
        request,
        "add.html",
        case=case,
        kind=wanted,
        replaced=replaced,
        limit=wiring.uploads.limit,
        looked_at_by=looked_at_by(wiring.catalogue[case.process], case.state),
        key=str(uuid4()),
    )


async def get_sent_envelope(request: Request, actor: Operator) -> Envelope:
    """The envelope, from the headers that the API takes. Raises as it does."""
    return await get_envelope(request, actor)


@uploads.post("/console/cases/{case_id}/documents", status_code=201)
async def add(
    request: Request,
    response: Response,
    wiring: Wired,
    envelope: Annotated[Envelope, Depends(get_sent_envelope)],
    case_id: UUID,
    wanted: Annotated[Adding, Query()],
) -> AttachedDocument:
    """Add it, exactly as the API does."""
    return await routes_documents.add(request, response, wiring, envelope, case_id, wanted)


@router.get("/console/cases/{case_id}/documents/{document_id}")
async def download(wiring: Wired, actor: Operator, case_id: UUID, document_id: UUID) -> Response:
    """A document, to be saved and never to be shown."""
    return await routes_documents.download(wiring, actor, case_id, document_id)


@router.get("/console/cases/{case_id}/documents/made/{effect_key}")
async def download_made(wiring: Wired, actor: Operator, case_id: UUID, effect_key: Annotated[Text, Path()]) -> Response:
    """What a step has made, in the same way."""
    return await routes_documents.download_made(wiring, actor, case_id, effect_key)
