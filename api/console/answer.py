"""Answering a proposal: confirming or declining it, with what its proposer was shown as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal
from uuid import UUID, uuid4

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from api.bodies import Confirming, Declining
from api.console import forms
from api.console.act import CARRIED, moved, to_outcome, unknown, what_changed
from api.console.consequences import consequences
from api.console.door import Form, Operator, SealedForm, console_router
from api.console.pages import page
from api.deps import Wired, Wiring
from caseward.cases.commands import field_errors
from caseward.cases.confirming import confirm_proposal, decline_proposal
from caseward.cases.queries import get_case, get_operation, get_plan, latest_entries
from caseward.documents.case import CaseDocument
from caseward.documents.proposal import AnswerDocument, ProposalDocument
from caseward.errors import ActionNotAllowed, InputInvalid, VersionStale
from caseward.process import Process
from caseward.situation import Actor, address_title

router = console_router()

Answer = Literal["confirm", "decline"]
# What is told of a proposal to those who decline it.
NOTHING: Mapping[str, Any] = {"consequences": None, "from_step": None, "plan": None, "no_plan": None}


@dataclass(frozen=True)
class Answering:
    """A proposal, and how somebody would answer it."""

    case: CaseDocument
    proposal: ProposalDocument | None
    seen: int


async def _answering(wiring: Wiring, actor: Actor, operation_id: UUID) -> Answering:
    """The proposal as its case shows it. Raises OperationNotFound, CaseNotFound."""
    async with wiring.database.transaction() as session:
        operation = await get_operation(session, wiring.catalogue, operation_id=operation_id, actor=actor)
        who: dict[str, Any] = {"case_id": operation.case_id, "actor": actor}
        case = await get_case(session, wiring.catalogue, **who)
        last = await latest_entries(session, wiring.catalogue, limit=1, **who)
    found = next((each for each in case.proposals if each.operation_id == operation_id), None)
    return Answering(case, found, last[0].number if last else 0)


async def _answer_page(
    request: Request,
    wiring: Wiring,
    actor: Actor,
    answering: Answering,
    answer: Answer,
    *,
    given: forms.Json | None = None,
    errors: Mapping[str, str] | None = None,
    carried: Mapping[str, str] | None = None,
    status: int = 200,
    **told: Any,
) -> Response:
    proposal, wrong = answering.proposal, errors or {}
    if proposal is None:  # it was answered, or it expired
        return _to_case(answering.case.case_id)
    model = Confirming if answer == "confirm" else Declining
    own = {"key": str(uuid4()), "etag": answering.case.etag, "seen": str(answering.seen), **(carried or {})}
    offered: AnswerDocument = proposal.confirm if answer == "confirm" else proposal.decline
    process, action = wiring.catalogue[answering.case.process], proposal.action
    # The step and the item that it is about are named above its content; from which step a replay goes is content.
    named = {name for name in ("step", "item") if getattr(action, name) is not None}
    return page(
        request,
        "answer.html",
        status=status,
        case=answering.case,
        proposal=proposal,
        answer=answer,
        offered=offered,
        step_title=action.step and address_title(process, action.step),
        content={name: value for name, value in proposal.input.items() if name not in named},
        unknown=unknown(answering.case, action),
        **(
            await _what_confirming_does(wiring, actor, process, answering.case, proposal)
            if answer == "confirm"
            else NOTHING
        ),
        fields=forms.Form(model.model_json_schema(), given or {}, wrong).fields(),
        own=own,
        wrong=[message for name, message in wrong.items() if name != "reason"],
        **{"refused": None, **told},
    )


async def _what_confirming_does(
    wiring: Wiring, actor: Actor, process: Process, case: CaseDocument, proposal: ProposalDocument
) -> dict[str, Any]:
    """What the proposer was shown, as it is now: nobody confirms blind."""
    catalogue, action = wiring.catalogue, proposal.action
    async with wiring.database.transaction() as session:
        follows = await consequences(session, catalogue, process, case, action, actor)
    told = {**NOTHING, "consequences": follows}
    if action.name != "replay":
        return told
    step = proposal.input["step"]
    told["from_step"] = address_title(process, step)
    try:
        async with wiring.database.transaction() as session:
            about: dict[str, Any] = {"case_id": case.case_id, "step": step, "actor": actor}
            told["plan"] = await get_plan(session, catalogue, proposed=True, **about)
    except (InputInvalid, ActionNotAllowed) as refused:
        told["no_plan"] = refused.detail
    return told


def _to_case(case_id: UUID) -> Response:
    return RedirectResponse(f"/console/cases/{case_id}", HTTPStatus.SEE_OTHER)


@router.get("/console/operations/{operation_id}/{answer}")
async def ask_answer(request: Request, wiring: Wired, actor: Operator, operation_id: UUID, answer: Answer) -> Response:
    """What was proposed, to be confirmed or declined."""
    answering = await _answering(wiring, actor, operation_id)
    return await _answer_page(request, wiring, actor, answering, answer)


@router.post("/console/operations/{operation_id}/{answer}")
async def give_answer(
    request: Request, wiring: Wired, envelope: SealedForm, form: Form, operation_id: UUID, answer: Answer
) -> Response:
    """Confirm or decline it."""
    answering = await _answering(wiring, envelope.actor, operation_id)
    model = Confirming if answer == "confirm" else Declining
    carried = {field: form[field] for field in CARRIED - {"more"} if field in form}
    command: Any = confirm_proposal if answer == "confirm" else decline_proposal
    given, errors = forms.decoded({field: value for field, value in form.items() if field not in CARRIED})
    try:
        if not errors:
            body = forms.checked(model, given)
            async with wiring.command() as session:
                accepted = await command(
                    session, wiring.catalogue, operation_id=operation_id, reason=body.reason, envelope=envelope
                )
            return to_outcome(accepted)
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    except VersionStale as refused:
        return await _answer_once_more(request, wiring, envelope.actor, operation_id, answer, form, given, refused)
    except ActionNotAllowed as refused:
        return await moved(request, wiring, envelope.actor, answering.case.case_id, form, refused)
    about: dict[str, Any] = {"given": given, "errors": errors, "carried": carried}
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return await _answer_page(request, wiring, envelope.actor, answering, answer, status=status, **about)


async def _answer_once_more(
    request: Request,
    wiring: Wiring,
    actor: Actor,
    operation_id: UUID,
    answer: Answer,
    form: Mapping[str, str],
    given: forms.Json,
    refused: VersionStale,
) -> Response:
    """The form as a new one, with what was given and what changed; the case, where it can't be answered any more."""
    answering = await _answering(wiring, actor, operation_id)
    proposal = answering.proposal
    if proposal is None or not (proposal.confirm if answer == "confirm" else proposal.decline).allowed:
        return await moved(request, wiring, actor, answering.case.case_id, form, refused)
    told: dict[str, Any] = {"refused": refused, **await what_changed(wiring, actor, answering.case, form)}
    return await _answer_page(request, wiring, actor, answering, answer, given=given, status=refused.status, **told)
