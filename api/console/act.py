"""Acting on a case: a form for every action, made from its schema, and the very commands that the API's routes call.

A form is bound to what its reader saw: the case's tag, and the number of the last entry. Whoever acts on what is no
more is refused, and told what changed and by whom; what they gave is there for another, informed click. The form's key
is made with it: a second click is the same command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from fastapi import Query, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from api.bodies import transition_body
from api.console import forms
from api.console.case import act_href, case_page, changes_since, pauses_of, read_page
from api.console.consequences import consequences
from api.console.door import Form, Operator, SealedForm, console_router
from api.console.pages import page
from api.deps import Wired, Wiring
from api.routes_cases import MAX_NUMBER
from caseward.cases.commands import (
    Accepted,
    field_errors,
    request_claim,
    request_override,
    request_transition,
)
from caseward.cases.envelope import Envelope
from caseward.cases.queries import get_case, get_plan, latest_entries
from caseward.claims import ClaimInput
from caseward.documents.case import ActionDocument, CaseDocument
from caseward.documents.proposal import ProposedAction
from caseward.documents.replay import ReplayPlan
from caseward.errors import ActionNotAllowed, InputInvalid, VersionStale
from caseward.overrides import OVERRIDES
from caseward.process import Nothing, Process
from caseward.situation import Actor, address_title

router = console_router()

Kind = Literal["transition", "override", "claim"]
Name = Annotated[str | None, Query(max_length=200)]
# What every form carries beside its fields.
CARRIED = frozenset({"key", "etag", "seen", "more"})
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Acting:
    """An action of a case as its document shows it, on its way to becoming a form."""

    wiring: Wiring
    actor: Actor
    case: CaseDocument
    action: ActionDocument
    seen: int
    """The number of the last entry when the case was read."""

    @property
    def model(self) -> type[BaseModel]:
        """What the API would take."""
        process = self.wiring.catalogue[self.case.process]
        if self.action.kind == "override":
            return OVERRIDES[self.action.name].input
        if self.action.kind == "claim":
            return ClaimInput
        transition = process.transition(self.action.name)
        if transition is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return transition_body(process, transition)

    @property
    def unknown(self) -> bool:
        """Nobody knows whether the step's effect happened."""
        return unknown(self.case, self.action)

    @property
    def known(self) -> forms.Json:
        """What the form is filled in with: the subject, where another is given in its place."""
        process = self.wiring.catalogue[self.case.process]
        transition = process.transition(self.action.name) if self.action.kind == "transition" else None
        if transition is None or transition.revise is None:
            return {}
        asked = transition.input.model_fields.items()
        return {"input": {name: self.case.subject for name, field in asked if field.annotation is process.subject}}

    def fields(self, given: forms.Json, errors: Mapping[str, str]) -> Sequence[forms.Field]:
        """The fields that a person fills in; step, item and plan are the page's own."""
        made = forms.Form(self.model.model_json_schema(), given, errors)
        hidden = {"step", "item", "plan_hash", "result", "happened"}
        if self.action.kind != "override":
            return made.fields()
        fields = list(made.fields(without=hidden))
        if self.action.name == "mark_done":
            process = self.wiring.catalogue[self.case.process]
            fields = [*forms.Form(result_schema(process, self.action.step), given, errors).fields(), *fields]
        if self.unknown and self.action.name in {"retry", "skip"}:
            fields.insert(0, happened(given, errors))
        return fields

    async def plan(self, step: str) -> ReplayPlan:
        """Of a replay from this step. Raises InputInvalid, ActionNotAllowed."""
        catalogue, case_id = self.wiring.catalogue, self.case.case_id
        async with self.wiring.database.transaction() as session:
            return await get_plan(session, catalogue, case_id=case_id, step=step, actor=self.actor)

    async def now(self) -> "Acting":
        """The same action as the case shows it now."""
        action = self.action
        return await _acting(
            self.wiring, self.actor, self.case.case_id, action.kind, action.name, action.step, action.item
        )

    async def consequences(self) -> Any:
        """What would follow."""
        catalogue = self.wiring.catalogue
        process = catalogue[self.case.process]
        async with self.wiring.database.transaction() as session:
            return await consequences(session, catalogue, process, self.case, self.action, self.actor)


def result_schema(process: Process, address: str | None) -> forms.Json:
    """What the step would have answered, by the type of its result; empty where that is nothing."""
    step = process.steps.get(address or "")  # the taking back of one answers nothing
    schema = (Nothing if step is None else step.result).model_json_schema()
    if not schema.get("properties"):
        return {}
    return {
        "properties": {"result": {**schema, "title": "Result"}},
        "required": ["result"],
        "$defs": schema.get("$defs", {}),
    }


def happened(given: forms.Json, errors: Mapping[str, str], *, prefix: str = "") -> forms.Field:
    """What somebody must find out before an unknown effect is tried again or left out."""
    return forms.Field(
        name=f"{prefix}happened",
        title="Did it happen?",
        kind="choice",
        help="Nobody knows whether the partner did it. If it did, mark it as done instead.",
        choices=(forms.Choice("false", "It did not happen: somebody has looked, or asked the partner"),),
        value=str(given.get("happened", "")).lower(),
        wrong=errors.get(f"{prefix}happened", ""),
    )


def unknown(case: CaseDocument, action: ActionDocument | ProposedAction) -> bool:
    """Nobody knows whether the effect that it is about happened."""
    steps = case.operation.steps if case.operation else []
    mine = (each for each in steps if each.name == action.step and each.item == action.item)
    return any(each.outcome == UNKNOWN for each in mine)


async def _acting(
    wiring: Wiring, actor: Actor, case_id: UUID, kind: str, name: str, step: str | None, item: str | None
) -> Acting:
    """The action as the case shows it to this actor. Raises CaseNotFound, HTTPException."""
    async with wiring.database.transaction() as session:
        case = await get_case(session, wiring.catalogue, case_id=case_id, actor=actor)
        last = await latest_entries(session, wiring.catalogue, case_id=case_id, actor=actor, limit=1)
    mine = [action for action in case.actions if (action.kind, action.name) == (kind, name)]
    exactly = [action for action in mine if (action.step, action.item) == (step, item)]
    if not mine:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    action = exactly[0] if exactly else mine[0].model_copy(update={"step": step, "item": item})
    if not exactly and step is not None:  # the step is not where this could be done any more
        action = action.model_copy(update={"allowed": False})
    return Acting(wiring, actor, case, action, last[0].number if last else 0)


async def _form_page(
    request: Request,
    acting: Acting,
    *,
    given: forms.Json | None = None,
    errors: Mapping[str, str] | None = None,
    carried: Mapping[str, str] | None = None,
    plan: ReplayPlan | None = None,
    status: int = 200,
    **told: Any,
) -> Response:
    action, wrong = acting.action, errors or {}
    own = {"key": str(uuid4()), "etag": acting.case.etag, "seen": str(acting.seen), **(carried or {})}
    fields = acting.fields(acting.known if given is None else given, wrong)
    return page(
        request,
        "act.html",
        status=status,
        case=acting.case,
        action=action,
        href=act_href(acting.case.case_id, action),
        title=f"{action.title}{_of_step(acting)}",
        fields=fields,
        own=own,
        plan=plan,
        step_choices=_step_choices(acting) if action.name == "replay" else (),
        consequences=await acting.consequences(),
        wrong=forms.elsewhere(wrong, fields),
        unknown=acting.unknown,
        **{"refused": None, **told},
    )


def _of_step(acting: Acting) -> str:
    step = acting.action.step
    return f": {address_title(acting.wiring.catalogue[acting.case.process], step)}" if step else ""


def _step_choices(acting: Acting) -> Sequence[tuple[str, str]]:
    process = acting.wiring.catalogue[acting.case.process]
    return [(step.name, step.title) for step in process.steps.values()]


@router.get("/console/cases/{case_id}/{kind}/{name}")
async def ask(
    request: Request,
    wiring: Wired,
    actor: Operator,
    case_id: UUID,
    kind: Kind,
    name: str,
    step: Name = None,
    item: Name = None,
    from_step: Name = None,
) -> Response:
    """The form of an action, with what would follow."""
    acting = await _acting(wiring, actor, case_id, kind, name, step, item)
    if name != "replay" or from_step is None:
        return await _form_page(request, acting)
    try:
        plan = await acting.plan(from_step)
    except (InputInvalid, ActionNotAllowed) as refused:
        return await _form_page(request, acting, errors={"from_step": refused.detail}, status=HTTPStatus.CONFLICT)
    return await _form_page(request, acting, plan=plan)


@router.post("/console/cases/{case_id}/{kind}/{name}")
async def act(
    request: Request,
    wiring: Wired,
    envelope: SealedForm,
    form: Form,
    case_id: UUID,
    kind: Kind,
    name: str,
    step: Name = None,
    item: Name = None,
) -> Response:
    """Order it. What is wrong comes back with the form, what is stale with what changed."""
    acting = await _acting(wiring, envelope.actor, case_id, kind, name, step, item)
    carried = {field: form[field] for field in CARRIED - {"more"} if field in form}
    given, errors = forms.decoded({field: value for field, value in form.items() if field not in CARRIED})
    try:
        if "more" in form:
            forms.one_more(given, form["more"])
            return await _form_page(request, acting, given=given, errors=errors, carried=carried)
        if errors:
            return await _wrong(request, acting, given, errors, carried)
        if kind == "override" and OVERRIDES[name].per_step:
            given |= {key: value for key, value in (("step", step), ("item", item)) if value is not None}
        accepted = await _ordered(wiring, acting, envelope, given)
    except forms.FormWrong as wrong:
        errors = {wrong.name: wrong.message}
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    except InputInvalid as refused:
        errors = {each["field"]: each["message"] for each in refused.members.get("errors", ())} or {"": refused.detail}
    except VersionStale as refused:
        return await _once_more(request, await acting.now(), form, given, refused)
    except ActionNotAllowed as refused:
        return await moved(request, wiring, envelope.actor, case_id, form, refused)
    else:
        return to_outcome(accepted)
    return await _wrong(request, acting, given, errors, carried)


async def _wrong(
    request: Request, acting: Acting, given: forms.Json, errors: Mapping[str, str], carried: Mapping[str, str]
) -> Response:
    """The same form with what was given, and with what is wrong beside it."""
    plan = await acting.plan(given["step"]) if acting.action.name == "replay" and "step" in given else None
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return await _form_page(request, acting, given=given, errors=errors, carried=carried, plan=plan, status=status)


async def _ordered(wiring: Wiring, acting: Acting, envelope: Envelope, given: forms.Json) -> Accepted:
    """The command, exactly as the API's route would give it."""
    body = forms.checked(acting.model, given)
    catalogue, case = wiring.catalogue, acting.case
    about: dict[str, Any] = {"case_id": case.case_id, "envelope": envelope}
    async with wiring.command() as session:
        if acting.action.kind == "override":
            return await request_override(session, catalogue, override=acting.action.name, input=body, **about)
        if acting.action.kind == "claim":
            return await request_claim(session, catalogue, claim=acting.action.name, input=body, **about)
        return await request_transition(
            session,
            catalogue,
            process=case.process,
            transition=acting.action.name,
            input=body.input,
            reason=body.reason,
            **about,
        )


def to_outcome(accepted: Accepted) -> Response:
    """To the case, which shows what the server tells of the operation, while it goes on."""
    to = f"/console/cases/{accepted.case_id}?operation={accepted.operation_id}"
    return RedirectResponse(to, HTTPStatus.SEE_OTHER)


async def _once_more(
    request: Request, acting: Acting, form: Mapping[str, str], given: forms.Json, refused: VersionStale
) -> Response:
    """The form as a new one, with what was given and what changed; the case, where it can't be done any more."""
    case = acting.case
    try:
        plan = await acting.plan(given["step"]) if acting.action.name == "replay" and "step" in given else None
    except (InputInvalid, ActionNotAllowed):
        return await moved(request, acting.wiring, acting.actor, case.case_id, form, refused)
    if not acting.action.allowed:
        return await moved(request, acting.wiring, acting.actor, case.case_id, form, refused)
    told = await what_changed(acting.wiring, acting.actor, case, form)
    return await _form_page(request, acting, given=given, plan=plan, status=refused.status, refused=refused, **told)


async def what_changed(wiring: Wiring, actor: Actor, case: CaseDocument, form: Mapping[str, str]) -> dict[str, Any]:
    """What changed since the form was opened; of pauses only its tag tells."""
    seen = form.get("seen", "")
    after = int(seen) if seen.isdecimal() and int(seen) <= MAX_NUMBER else MAX_NUMBER
    paused = pauses_of(form.get("etag", "")) != pauses_of(case.etag)
    return {"changes": await changes_since(wiring, actor, case.case_id, after), "pauses_changed": paused}


async def moved(
    request: Request,
    wiring: Wiring,
    actor: Actor,
    case_id: UUID,
    form: Mapping[str, str],
    refused: ActionNotAllowed | VersionStale,
) -> Response:
    """The fresh page, with why it was refused, and with what changed since the form was opened."""
    shown = await read_page(wiring, actor, case_id)
    status = refused.http_status if isinstance(refused, ActionNotAllowed) else refused.status
    told = {**await what_changed(wiring, actor, shown.case, form), "typed": form.get("reason", "")}
    return case_page(request, shown, status=status, refused=refused, **told)
