"""Pauses: of a process, a partner or one case, and how they end."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Response
from pydantic import ConfigDict, Field, model_validator

from api.bodies import Storable
from api.deps import OperatingActor, OverseeingActor, Sealed, Session, Wired, header_parameters
from api.responses import LOCATION, problems, success
from api.routes_cases import Text
from caseward.cases.commands import request_override
from caseward.cases.pausing import RATE, case_document_of, list_pauses, request_pause, request_resume
from caseward.db.tables import Case
from caseward.documents.pauses import PauseDocument, PauseList
from caseward.errors import PauseNotFound
from caseward.overrides import Deadlines, PauseInput, ResumeInput, Why
from caseward.process import Strict

router = APIRouter(prefix="/v1/pauses", tags=["Pauses"])

_EXAMPLE: dict[str, Any] = {"partner": "bank", "reason": "They are moving house, ticket 4711", "deadlines": "running"}
_RESUME: dict[str, Any] = {"reason": "The bank is back, ticket 4711", "rate": 20}


class PauseOrder(Strict):
    """What is paused, why, and what becomes of deadlines meanwhile."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    process: Text | None = None
    partner: Text | None = None
    case_id: UUID | None = None
    reason: Why
    deadlines: Deadlines = "running"

    @model_validator(mode="after")
    def _one_of_three(self) -> "PauseOrder":
        if sum(given is not None for given in (self.process, self.partner, self.case_id)) != 1:
            message = "name a process, a partner or a case, and only one of them"
            raise ValueError(message)
        return self


class ResumeOrder(Strict):
    """Why it ends, and how fast."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RESUME]})

    reason: Why
    rate: Annotated[
        int,
        Field(ge=1, le=1000, description="Cases a second, at most, that are let go on; of a single case no matter."),
    ] = RATE


_COMMAND = problems(400, 401, 403, 404, 409, 412, 413, 422, 503)
_ORDER = {"example": {"summary": "Works as it stands", "value": _EXAMPLE}}
_END = {"example": {"summary": "Works as it stands", "value": _RESUME}}


@router.get("", operation_id="list_pauses", responses=problems(401, 403, 503))
async def get_pauses(session: Session, wiring: Wired, _: OverseeingActor) -> PauseList:
    """The pause of every process and every partner, standing or not; paused cases are under `/v1/cases`."""
    return await list_pauses(session, wiring.catalogue)


@router.post(
    "",
    operation_id="pause",
    responses={**success(200, "The pause; nothing new begins from here on", LOCATION), **_COMMAND},
    openapi_extra=header_parameters("Idempotency-Key"),
)
async def pause(
    wiring: Wired,
    envelope: Sealed,
    _: OperatingActor,
    response: Response,
    body: Annotated[PauseOrder, Storable, Body(openapi_examples=_ORDER)],  # pyright: ignore[reportArgumentType]
) -> PauseDocument:
    """Let nothing new begin, or be sent to the partner; probes, outcomes and callbacks of what is under way pass."""
    async with wiring.command() as session:
        if body.case_id is None:
            document = await request_pause(
                session,
                wiring.catalogue,
                process=body.process.replace("-", "_") if body.process is not None else None,
                partner=body.partner,
                reason=body.reason,
                deadlines=body.deadlines,
                envelope=envelope,
            )
        else:
            given = PauseInput(reason=body.reason, deadlines=body.deadlines)
            await request_override(
                session, wiring.catalogue, case_id=body.case_id, override="pause", input=given, envelope=envelope
            )
            document = None
    document = document or await _of_case(wiring, body.case_id)
    response.headers["Location"] = f"/v1/pauses/{document.pause_id}"
    return document


@router.get("/{pause_id}", operation_id="get_pause", responses=problems(401, 403, 404, 422, 503))
async def get_one(session: Session, wiring: Wired, _: OverseeingActor, pause_id: UUID) -> PauseDocument:
    """One of them; that of a case has the case's id."""
    for document in (await list_pauses(session, wiring.catalogue)).pauses:
        if document.pause_id == pause_id:
            return document
    return await _of_case(wiring, pause_id)


@router.post(
    "/{pause_id}/resume",
    operation_id="resume",
    responses={**success(200, "The pause, being resumed or over", LOCATION), **_COMMAND},
    openapi_extra=header_parameters("Idempotency-Key"),
)
async def resume(
    wiring: Wired,
    envelope: Sealed,
    _: OperatingActor,
    response: Response,
    pause_id: UUID,
    body: Annotated[ResumeOrder, Storable, Body(openapi_examples=_END)],  # pyright: ignore[reportArgumentType]
) -> PauseDocument:
    """End the pause; the cases that waited go on at a limited rate, those that waited longest first."""
    document: PauseDocument | None = None
    async with wiring.command() as session:
        if await session.get(Case, pause_id) is None:
            document = await request_resume(
                session, wiring.catalogue, pause_id=pause_id, reason=body.reason, rate=body.rate, envelope=envelope
            )
        else:
            session.expunge_all()  # the command reads the case itself, under its lock
            given = ResumeInput(reason=body.reason)
            await request_override(
                session, wiring.catalogue, case_id=pause_id, override="resume", input=given, envelope=envelope
            )
    document = document or await _of_case(wiring, pause_id)
    response.headers["Location"] = f"/v1/pauses/{document.pause_id}"
    return document


async def _of_case(wiring: Wired, case_id: UUID | None) -> PauseDocument:
    """As it stands after the commit."""
    async with wiring.database.transaction() as session:
        case = await session.get(Case, case_id) if case_id is not None else None
        if case is None or case.process not in wiring.catalogue:
            raise PauseNotFound
        return case_document_of(case)
