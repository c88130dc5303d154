"""Cases, operations and the outbox, for reading."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.answers import etag
from api.bodies import Storable
from api.deps import CurrentActor, EvidenceReader, OperatingActor, OverseeingActor, Session, Wired
from api.responses import DOWNLOAD, NO_STORE, READING, READING_CASE, problems, success
from caseward.cases import queries
from caseward.cases.export import evidence, file_name
from caseward.cases.parked import dismiss_message, requeue_message
from caseward.documents.case import CaseDocument, CaseList
from caseward.documents.evidence import EvidenceDocument
from caseward.documents.operation import OperationDocument
from caseward.documents.outbox import MessageDocument, MessageList
from caseward.documents.replay import ReplayPlan
from caseward.documents.timeline import Timeline
from caseward.overrides import Why
from caseward.process import Strict
from caseward.situation import ConditionName

router = APIRouter(prefix="/v1")

MAX_NUMBER = 2**31 - 1  # of a timeline entry: Postgres's integer
MAX_ID = 2**63 - 1  # of an outbox message: its bigint

Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
Search = Annotated[Text, Field(description="A business key's beginning, or the id of a case, operation or effect")]
Cursor = Annotated[Text, Field(description="From the `next` of the page before")]
Limit = Annotated[int, Field(ge=1, le=queries.MAX_PAGE)]
After = Annotated[int, Query(ge=0, le=MAX_NUMBER, description="The number of the last entry you have")]


class CaseQuery(BaseModel):
    """What a list of cases may ask for; a misspelt filter is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    process: Text | None = None
    state: Text | None = None
    condition: ConditionName | None = None
    recovery_owner: Text | None = None
    waiting_on: Text | None = None
    business_key: Text | None = None
    assignee: Annotated[Text | None, Field(description="The id of who has claimed them")] = None
    proposals: Annotated[bool | None, Field(description="Whether something waits for confirmation")] = None
    overdue: Annotated[
        bool | None, Field(description="Whether the state's deadline has passed, and nothing is under way")
    ] = None
    q: Search | None = None
    cursor: Cursor | None = None
    limit: Limit = queries.PAGE


@router.get("/cases", operation_id="list_cases", tags=["Cases"], responses=problems(401, 422, 503))
async def list_cases(
    session: Session, wiring: Wired, actor: CurrentActor, wanted: Annotated[CaseQuery, Query()]
) -> CaseList:
    """A page of the cases this actor may see, newest change first."""
    case_filter = queries.CaseFilter(**wanted.model_dump())
    return await queries.list_cases(session, wiring.catalogue, wanted=case_filter, actor=actor)


@router.get("/cases/{case_id}", operation_id="get_case", tags=["Cases"], responses=READING_CASE)
async def get_case(
    session: Session, wiring: Wired, actor: CurrentActor, response: Response, case_id: UUID
) -> CaseDocument:
    """The case as this actor sees it, with every action and whether it is allowed."""
    document = await queries.get_case(session, wiring.catalogue, case_id=case_id, actor=actor)
    response.headers["ETag"] = etag(document.etag)
    return document


class Dismissal(Strict):
    """Why it needs no delivery any more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "The mail did arrive"}]})

    reason: Why


_DISMISSAL = {"example": {"summary": "Works as it stands", "value": {"reason": "The mail did arrive"}}}


class PlanRequest(Strict):
    """From which step it would be done again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"step": "open_payee"}]})

    step: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


@router.post(
    "/cases/{case_id}/plan",
    operation_id="plan_replay",
    tags=["Overrides"],
    responses=problems(400, 401, 404, 409, 413, 422, 503),
)
async def plan(
    session: Session,
    wiring: Wired,
    actor: CurrentActor,
    case_id: UUID,
    body: Annotated[PlanRequest, Body(openapi_examples={"example": {"value": {"step": "open_payee"}}})],
) -> ReplayPlan:
    """What a replay from this step would do, and the hash to order exactly that with. Changes nothing."""
    return await queries.get_plan(session, wiring.catalogue, case_id=case_id, step=body.step, actor=actor)


@router.get("/cases/{case_id}/timeline", operation_id="get_timeline", tags=["Cases"], responses=READING)
async def get_timeline(
    session: Session,
    wiring: Wired,
    actor: CurrentActor,
    case_id: UUID,
    after: After = 0,
    limit: Annotated[Limit, Query()] = queries.MAX_PAGE,
) -> Timeline:
    """What happened, in order; entries are never changed or removed."""
    return await queries.get_timeline(session, wiring.catalogue, case_id=case_id, actor=actor, after=after, limit=limit)


@router.get(
    "/cases/{case_id}/evidence",
    operation_id="export_evidence",
    tags=["Cases"],
    response_model=EvidenceDocument,
    responses={**success(200, "The evidence file, as a download", DOWNLOAD, NO_STORE), **READING, **problems(403)},
)
async def export_evidence(wiring: Wired, actor: EvidenceReader, case_id: UUID) -> StreamingResponse:
    """A case with every operation and entry, as a file that `caseward timeline verify --file` checks offline."""
    parts = await evidence(wiring.database, wiring.catalogue, case_id=case_id, actor=actor)
    named = {"Content-Disposition": f'attachment; filename="{file_name(case_id)}"'}
    return StreamingResponse(parts, media_type="application/json", headers=named)


@router.get("/operations/{operation_id}", operation_id="get_operation", tags=["Operations"], responses=READING)
async def get_operation(session: Session, wiring: Wired, actor: CurrentActor, operation_id: UUID) -> OperationDocument:
    """The operation with its steps and their attempts."""
    return await queries.get_operation(session, wiring.catalogue, operation_id=operation_id, actor=actor)


@router.get("/outbox", operation_id="list_outbox", tags=["Outbox"], responses=problems(401, 403, 422, 503))
async def list_outbox(
    session: Session,
    _: OverseeingActor,
    *,
    parked: Annotated[bool, Query()] = True,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="From the `next` of the page before")] = 0,
) -> MessageList:
    """Messages that could not be delivered; with `parked=false` those that still wait to be."""
    return await queries.parked_messages(session, parked=parked, after=after)


@router.post(
    "/outbox/{message_id}/requeue",
    operation_id="requeue_message",
    tags=["Outbox"],
    responses=problems(401, 403, 404, 422, 503),
)
async def requeue(
    wiring: Wired, actor: OperatingActor, message_id: Annotated[int, Path(ge=1, le=MAX_ID)]
) -> MessageDocument:
    """Release a parked message for another try. Doing it twice does it once, so it needs no Idempotency-Key."""
    async with wiring.command() as session:
        message = await requeue_message(session, wiring.catalogue, message_id=message_id, actor=actor)
        return queries.message_document(message)


@router.post(
    "/outbox/{message_id}/dismiss",
    operation_id="dismiss_message",
    tags=["Outbox"],
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
)
async def dismiss(
    wiring: Wired,
    actor: OperatingActor,
    message_id: Annotated[int, Path(ge=1, le=MAX_ID)],
    body: Annotated[Dismissal, Storable, Body(openapi_examples=_DISMISSAL)],  # pyright: ignore[reportArgumentType]
) -> MessageDocument:
    """Give up a parked message that needs no delivery any more. Doing it twice does it once, so it needs no key."""
    async with wiring.command() as session:
        message = await dismiss_message(
            session, wiring.catalogue, message_id=message_id, actor=actor, reason=body.reason
        )
        return queries.message_document(message)
