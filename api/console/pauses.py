"""Pauses of processes and partners: how each stands, and the forms that begin and end one. A case has an override."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal, cast
from uuid import uuid4

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from api.console import Place, forms
from api.console.door import Form, KeyedForm, Operator, console_router
from api.console.pages import page
from api.deps import OPERATES, OVERSEES, Wired, Wiring
from api.routes_pauses import PauseOrder, ResumeOrder
from caseward.cases.commands import field_errors
from caseward.cases.envelope import Envelope
from caseward.cases.pausing import RATE, list_pauses, request_pause, request_resume
from caseward.documents.pauses import PauseDocument
from caseward.situation import SYSTEM

router = console_router()
PLACE = Place("Pauses", "/console/pauses", OVERSEES.roles)

Move = Literal["pause", "resume"]
# In which states of a pause a move is offered; the command decides.
OFFERED: Mapping[str, frozenset[Move]] = {
    "open": frozenset({"pause"}),
    "paused": frozenset({"resume"}),
    "probing": frozenset({"pause", "resume"}),
    "resuming": frozenset({"pause"}),
}
# The breaker's own pause may be made a person's, which it does not lift.
TAKEN_OVER: frozenset[Move] = frozenset({"pause"})
TONES = {"open": "good", "paused": "warn", "probing": "warn", "resuming": "info"}
MEANINGS = {
    "open": "Nothing holds it up.",
    "paused": "Nothing new begins; what is under way comes to its end.",
    "probing": "A few cases try whether it works again.",
    "resuming": "What waited goes on, at a limited rate.",
}
BODIES: Mapping[Move, Any] = {"pause": PauseOrder, "resume": ResumeOrder}
FIELDS: Mapping[Move, tuple[str, ...]] = {"pause": ("reason", "deadlines"), "resume": ("reason", "rate")}
USUAL: Mapping[Move, forms.Json] = {"pause": {"deadlines": "running"}, "resume": {"rate": RATE}}


def breakers_own(pause: PauseDocument) -> bool:
    """The circuit breaker paused it, and lets a few cases try by itself."""
    return pause.state in {"paused", "probing"} and pause.by is not None and pause.by.id == SYSTEM.id


def offered(pause: PauseDocument) -> frozenset[Move]:
    """What may be done about it."""
    return OFFERED[pause.state] | (TAKEN_OVER if breakers_own(pause) else frozenset[Move]())


@router.get("/console/pauses")
async def overview(request: Request, wiring: Wired, actor: Operator) -> Response:
    """Every process and every partner, what is paused first. Raises ActionNotAllowed."""
    await OVERSEES(actor)
    async with wiring.database.transaction() as session:
        found = (await list_pauses(session, wiring.catalogue)).pauses
    shown: dict[str, Any] = {"pauses": found, "offered": offered, "tones": TONES, "meanings": MEANINGS}
    return page(request, "pauses.html", operates=OPERATES.lets(actor), breakers_own=breakers_own, **shown)


async def _named(wiring: Wiring, scope: str, name: str) -> PauseDocument:
    async with wiring.database.transaction() as session:
        found = (await list_pauses(session, wiring.catalogue)).pauses
    for each in found:
        if (each.scope, each.name) == (scope, name):
            return each
    raise HTTPException(HTTPStatus.NOT_FOUND)


def _form_page(
    request: Request, pause: PauseDocument, move: Move, given: forms.Json, errors: Mapping[str, str], key: str
) -> Response:
    schema = BODIES[move].model_json_schema()
    properties = {name: schema["properties"][name] for name in FIELDS[move]}
    fields = forms.Form({**schema, "properties": properties, "required": list(FIELDS[move])}, given, errors).fields()
    return page(
        request,
        "pause.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if errors else 200,
        pause=pause,
        move=move,
        possible=move in offered(pause),
        taken_over=move == "pause" and breakers_own(pause),
        fields=fields,
        own={"key": key},
        wrong=forms.elsewhere(errors, fields),
        tones=TONES,
        meanings=MEANINGS,
    )


@router.get("/console/pauses/{scope}/{name}/{move}")
async def ask(request: Request, wiring: Wired, actor: Operator, scope: str, name: str, move: Move) -> Response:
    """The form, with what follows. Raises ActionNotAllowed."""
    await OPERATES(actor)
    return _form_page(request, await _named(wiring, scope, name), move, dict(USUAL[move]), {}, str(uuid4()))


@router.post("/console/pauses/{scope}/{name}/{move}")
async def take(
    request: Request, wiring: Wired, envelope: KeyedForm, form: Form, scope: str, name: str, move: Move
) -> Response:
    """Begin or end it, exactly as the API's routes do. Raises ActionNotAllowed, IdempotencyKeyReused."""
    await OPERATES(envelope.actor)
    pause = await _named(wiring, scope, name)
    given, errors = forms.decoded({field: value for field, value in form.items() if field != "key"})
    try:
        if not errors:
            named = {scope: name} if move == "pause" else {}
            await _order(wiring, pause, forms.checked(BODIES[move], {**given, **named}), envelope)
            return RedirectResponse(PLACE.path, HTTPStatus.SEE_OTHER)
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    return _form_page(request, pause, move, given, errors, form["key"])


async def _order(wiring: Wiring, pause: PauseDocument, body: Any, envelope: Envelope) -> None:
    async with wiring.command() as session:
        if isinstance(body, ResumeOrder):
            said: dict[str, Any] = {"reason": body.reason, "rate": body.rate}
            await request_resume(session, wiring.catalogue, pause_id=pause.pause_id, envelope=envelope, **said)
            return
        order = cast("PauseOrder", body)
        said = {"process": order.process, "partner": order.partner, "reason": order.reason}
        await request_pause(session, wiring.catalogue, deadlines=order.deadlines, envelope=envelope, **said)
