"""Callbacks: what partners tell us later. No token but a signature; stored before it is answered."""

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Body, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, from_json

from api.bodies import Storable, storable
from api.deps import OperatingActor, OverseeingActor, Sealed, Session, Wired, header_parameters
from api.errors import PartnerNotFound
from api.responses import problems
from api.webhooks import MAX_ID, TOLERANCE, Signatures
from caseward.cases.callbacks import PartnerEvent, list_callbacks, receive
from caseward.cases.commands import field_errors
from caseward.cases.parked import dismiss_callback
from caseward.documents.callbacks import CallbackDocument, CallbackList, CallbackReceipt
from caseward.errors import InputInvalid
from caseward.process import Strict

router = APIRouter(prefix="/v1")

MAX_CODE, MAX_MESSAGE = 64, 500  # as of any partner's answer
EXAMPLE: dict[str, Any] = {
    "event_id": "evt_1",
    "partner": "bank",
    "call": "open_payee",
    "key": "0199c1de-0000-7000-8000-000000000000:open_payee",
    "outcome": "succeeded",
    "answer": {"payee_id": "PY-1"},
    "error": None,
}
_DISMISSED: dict[str, Any] = {
    "partner": "bank",
    "event_id": "evt_1",
    "reason": "The bank's test system sent it, ticket 4711",
}


class CallbackError(BaseModel):
    """Why the partner did not do it after all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str = Field(default="failed", max_length=1000)
    message: str = Field(default="", max_length=10_000)


class CallbackBody(BaseModel):
    """What became of acknowledged work. Fields that we don't know are left out: partners may grow."""

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra={"examples": [EXAMPLE]})

    event_id: str = Field(min_length=1, max_length=MAX_ID, description="As in `webhook-id`.")
    partner: str | None = Field(default=None, max_length=200, description="As in the path, where it is named.")
    call: str | None = Field(default=None, max_length=200)
    key: str = Field(min_length=1, max_length=500, description="The Idempotency-Key of the request.")
    outcome: Literal["succeeded", "failed"]
    answer: dict[str, Any] | None = Field(default=None, description="What the call itself would have answered.")
    error: CallbackError | None = None


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string", **schema},
    }


_SIGNED: dict[str, Any] = {
    "parameters": [
        _header("webhook-id", "The event's id, the same for every delivery.", maxLength=MAX_ID),
        _header("webhook-timestamp", f"Seconds since 1970, within {TOLERANCE.seconds // 60} minutes of our clock."),
        _header(
            "webhook-signature", "`v1,` and the HMAC-SHA256 of `{id}.{timestamp}.{body}` in base64; several by spaces."
        ),
    ],
    "requestBody": {"required": True, "content": {"application/json": {"schema": CallbackBody.model_json_schema()}}},
}


async def get_signatures(request: Request) -> Signatures:
    """The application's."""
    return cast("Signatures", request.app.state.signatures)


@router.post(
    "/partners/{partner}/callbacks",
    operation_id="receive_callback",
    tags=["Callbacks"],
    openapi_extra=_SIGNED,
    responses=problems(401, 404, 413, 422, 503),
)
async def receive_callback(
    request: Request, wiring: Wired, signatures: Annotated[Signatures, Depends(get_signatures)], partner: str
) -> CallbackReceipt:
    """What became of work that a partner acknowledged. The same event again is answered alike and changes nothing."""
    if partner not in wiring.partners:
        raise PartnerNotFound
    event_id = signatures.check_headers(request.headers)
    raw = await request.body()
    signatures.check_body(request.headers, raw, partner=partner)
    event = _event(raw, partner=partner, event_id=event_id)
    new = await receive(wiring.database, wiring.catalogue, event)
    return CallbackReceipt(event_id=event_id, duplicate=not new)


class CallbackDismissal(Strict):
    """Which parked callback is given up, and why. An event id is the partner's own and may hold anything."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DISMISSED]})

    partner: str = Field(min_length=1, max_length=200)
    event_id: str = Field(min_length=1, max_length=MAX_ID)
    reason: Annotated[str, Field(min_length=3, max_length=2000, description="Why; stays with it for good.")]


_DISMISSAL = {"example": {"summary": "Works where it is parked", "value": _DISMISSED}}


@router.get("/callbacks", operation_id="list_callbacks", tags=["Callbacks"], responses=problems(401, 403, 422, 503))
async def list_stored_callbacks(
    session: Session,
    _: OverseeingActor,
    *,
    parked: Annotated[bool, Query()] = True,
    dismissed: Annotated[bool, Query(description="Those that were dismissed instead, the latest first.")] = False,
) -> CallbackList:
    """Callbacks that belong to nothing here; with `parked=false` those that still wait to be taken in."""
    return await list_callbacks(session, parked=parked, dismissed=dismissed)


@router.post(
    "/callbacks/dismiss",
    operation_id="dismiss_callback",
    tags=["Callbacks"],
    responses=problems(400, 401, 403, 404, 409, 413, 422, 503),
    openapi_extra=header_parameters("Idempotency-Key"),
)
async def dismiss(
    wiring: Wired,
    envelope: Sealed,
    _: OperatingActor,
    body: Annotated[CallbackDismissal, Storable, Body(openapi_examples=_DISMISSAL)],  # pyright: ignore[reportArgumentType]
) -> CallbackDocument:
    """Give up a parked callback that belongs to no case; it stays stored, with who dismissed it, when and why."""
    async with wiring.command() as session:
        return await dismiss_callback(
            session, partner=body.partner, event_id=body.event_id, reason=body.reason, envelope=envelope
        )


def _event(raw: bytes, *, partner: str, event_id: str) -> PartnerEvent:
    """The event as we keep it. Raises InputInvalid."""
    try:
        body = CallbackBody.model_validate(storable(from_json(raw, allow_inf_nan=False)))
    except ValidationError as fault:
        errors = field_errors(fault)
        raise InputInvalid("; ".join(f"{e['field']}: {e['message']}" for e in errors[:5]), errors=errors) from fault
    except (ValueError, PydanticCustomError) as fault:
        message = fault.message() if isinstance(fault, PydanticCustomError) else "The body is not well-formed JSON."
        raise InputInvalid(message, errors=[{"field": "body", "message": message}]) from fault
    for field, given, expected in (
        ("event_id", body.event_id, event_id),
        ("partner", body.partner or partner, partner),
    ):
        if given != expected:
            message = "It is not what the request itself says."
            raise InputInvalid(f"{field}: {message}", errors=[{"field": field, "message": message}])
    failed = body.outcome == "failed"
    said = body.error or CallbackError()
    return PartnerEvent(
        partner=partner,
        event_id=event_id,
        effect_key=body.key,
        call=body.call,
        outcome=body.outcome,
        answer=body.answer,
        error={"code": _shown(said.code, MAX_CODE), "message": _shown(said.message, MAX_MESSAGE)} if failed else None,
    )


def _shown(text: str, length: int) -> str:
    return "".join(character for character in text if character.isprintable()).strip()[:length]
