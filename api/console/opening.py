"""Opening a case: a form made from the schema of its subject, and the very command that the API's route calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse

from api.bodies import opening_body
from api.console import forms
from api.console.door import Form, KeyedForm, Operator, console_router
from api.console.pages import page
from api.console.processes import find_process
from api.deps import Wired, Wiring
from caseward.cases.commands import Accepted, field_errors, open_case
from caseward.cases.envelope import Envelope
from caseward.cases.queries import openings
from caseward.errors import ActionNotAllowed, BusinessKeyTaken, CommandRefused, IdempotencyKeyReused
from caseward.policy import Decision
from caseward.process import Process
from caseward.situation import Actor

router = console_router()

CARRIED = frozenset({"key", "more"})  # what the form carries beside its fields


@dataclass(frozen=True, kw_only=True)
class Given:
    """What somebody has given so far, and what is wrong with it."""

    given: forms.Json = field(default_factory=dict[str, Any])
    errors: Mapping[str, str] = field(default_factory=dict[str, str])
    key: str = field(default_factory=lambda: str(uuid4()))
    """Made with the form: sent twice it is one case."""
    refused: CommandRefused | None = None


@router.get("/console/processes/{name}/open")
async def ask(request: Request, wiring: Wired, actor: Operator, name: str) -> Response:
    """The form, or why this actor may open none now. Raises ProcessNotFound."""
    process = find_process(wiring, name)
    return _form_page(request, process, await _decision(wiring, process, actor), Given())


@router.post("/console/processes/{name}/open")
async def open_(request: Request, wiring: Wired, envelope: KeyedForm, form: Form, name: str) -> Response:
    """Open it. What is wrong or refused comes back with the form and with all that was given."""
    process = find_process(wiring, name)
    given, errors = forms.decoded({field: value for field, value in form.items() if field not in CARRIED})
    status, told = HTTPStatus.UNPROCESSABLE_ENTITY, dict[str, Any]()
    try:
        if "more" in form:
            forms.one_more(given, form["more"])
            status = HTTPStatus.OK
        elif not errors:
            accepted = await _opened(wiring, process, envelope, given)
            to = f"/console/cases/{accepted.case_id}?operation={accepted.operation_id}"
            return RedirectResponse(to, HTTPStatus.SEE_OTHER)
    except forms.FormWrong as wrong:
        errors = {wrong.name: wrong.message}
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    except (BusinessKeyTaken, IdempotencyKeyReused) as refused:
        status, told["refused"] = HTTPStatus(refused.status), refused
    except ActionNotAllowed as refused:
        status, told["refused"] = HTTPStatus(refused.http_status), refused
    if not isinstance(told.get("refused"), IdempotencyKeyReused):  # else the next one is another case
        told["key"] = envelope.idempotency_key
    decision = await _decision(wiring, process, envelope.actor)
    return _form_page(request, process, decision, Given(given=given, errors=errors, **told), status=status)


async def _decision(wiring: Wiring, process: Process, actor: Actor) -> Decision:
    async with wiring.database.transaction() as session:
        return (await openings(session, wiring.catalogue, actor=actor))[process.name]


async def _opened(wiring: Wiring, process: Process, envelope: Envelope, given: forms.Json) -> Accepted:
    """The command, exactly as the API's route would give it."""
    # Of a subject of which nothing was given it is said field by field what is missing.
    body = forms.checked(opening_body(process), {"subject": {}, **given})
    async with wiring.command() as session:
        return await open_case(
            session,
            wiring.catalogue,
            process=process.name,
            business_key=body.business_key,
            subject=body.subject,
            envelope=envelope,
        )


def _form_page(request: Request, process: Process, decision: Decision, so_far: Given, *, status: int = 200) -> Response:
    model: type[BaseModel] = opening_body(process)
    fields = forms.Form(model.model_json_schema(), so_far.given, so_far.errors).fields()
    opening = process.opening
    return page(
        request,
        "open.html",
        status=status,
        process=process,
        opening=opening,
        begins=process.state(opening.pending or opening.targets[0]),
        decision=decision,
        fields=fields,
        own={"key": so_far.key},
        refused=so_far.refused,
        asked=so_far.given,
        wrong=forms.elsewhere(so_far.errors, fields),
    )
