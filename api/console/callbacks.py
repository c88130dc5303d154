"""Parked callbacks: partners' news that belongs to no case, and the form that dismisses one."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, cast
from uuid import uuid4

from fastapi import Query, Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from api.console import forms
from api.console.door import Form, KeyedForm, Operator, console_router
from api.console.pages import page
from api.deps import OPERATES, OVERSEES, Wired
from api.routes_callbacks import CallbackDismissal
from api.webhooks import MAX_ID
from caseward.cases.callbacks import PAGE, list_callbacks
from caseward.cases.commands import field_errors
from caseward.cases.parked import dismiss_callback, get_parked
from caseward.documents.callbacks import CallbackDocument

router = console_router()
ALL = "/console/callbacks"

Partner = Annotated[str, Query(min_length=1, max_length=200)]
EventId = Annotated[str, Query(min_length=1, max_length=MAX_ID)]


@router.get(ALL)
async def overview(request: Request, wiring: Wired, actor: Operator) -> Response:
    """Those that are parked, the oldest first, and those dismissed last. Raises ActionNotAllowed."""
    await OVERSEES(actor)
    async with wiring.database.transaction() as session:
        parked = (await list_callbacks(session, parked=True)).callbacks
        dismissed = (await list_callbacks(session, parked=True, dismissed=True)).callbacks
    shown: dict[str, Any] = {"callbacks": parked, "dismissed": dismissed, "most": PAGE}
    return page(request, "callbacks.html", dismisses=OPERATES.lets(actor), **shown)


def _form_page(
    request: Request, callback: CallbackDocument, given: forms.Json, errors: Mapping[str, str], key: str
) -> Response:
    schema = CallbackDismissal.model_json_schema()
    asked = {"properties": {"reason": schema["properties"]["reason"]}, "required": ["reason"]}
    fields = forms.Form(asked, given, errors).fields()
    return page(
        request,
        "callback.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if errors else 200,
        callback=callback,
        fields=fields,
        own={"key": key, "partner": callback.partner, "event_id": callback.event_id},
        wrong=forms.elsewhere(errors, fields),
    )


@router.get(f"{ALL}/dismiss")
async def ask(request: Request, wiring: Wired, actor: Operator, partner: Partner, event_id: EventId) -> Response:
    """What it says, and why it may go. Raises ActionNotAllowed, CallbackNotFound."""
    await OPERATES(actor)
    async with wiring.database.transaction() as session:
        callback = await get_parked(session, partner=partner, event_id=event_id)
    return _form_page(request, callback, {}, {}, str(uuid4()))


@router.post(f"{ALL}/dismiss")
async def dismiss(request: Request, wiring: Wired, envelope: KeyedForm, form: Form) -> Response:
    """Dismiss it, exactly as the API's route does. Raises ActionNotAllowed, CallbackNotFound, CallbackNeeded."""
    await OPERATES(envelope.actor)
    given, errors = forms.decoded({field: value for field, value in form.items() if field != "key"})
    try:
        if not errors:
            body = cast("CallbackDismissal", forms.checked(CallbackDismissal, given))
            said = {"partner": body.partner, "event_id": body.event_id, "reason": body.reason}
            async with wiring.command() as session:
                await dismiss_callback(session, envelope=envelope, **said)
            return RedirectResponse(ALL, HTTPStatus.SEE_OTHER)
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    async with wiring.database.transaction() as session:
        callback = await get_parked(session, partner=form.get("partner", ""), event_id=form.get("event_id", ""))
    return _form_page(request, callback, given, errors, form["key"])
