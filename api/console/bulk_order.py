"""Ordering a bulk run: a group with its cases, what may be ordered over it, and the form of an order.

The form is bound to what its reader saw: a key of its own, and the instant of the youngest case that it counted. What
is blocked alike after that is not on the list; what moves on before its turn is left alone by the run itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, cast
from urllib.parse import urlencode
from uuid import UUID, uuid4

from fastapi import Query, Request, Response
from pydantic import AwareDatetime, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from api.console import forms
from api.console.act import happened, result_schema, unknown
from api.console.consequences import Consequences, consequences
from api.console.door import Form, KeyedForm, Operator, console_router
from api.console.pages import page
from api.deps import OVERSEES, Wired, Wiring
from api.routes_bulk import GroupChosen, Order
from api.routes_cases import Text
from caseward.cases.blocked import BlockedCase, blocked_cases, blocked_in
from caseward.cases.bulk import (
    DEFAULT_RATE,
    NEVER,
    NOT_IN_BULK,
    PER_ITEM,
    find_group,
    gone,
    nothing_blocked,
    order_bulk,
)
from caseward.cases.commands import field_errors
from caseward.cases.queries import get_case, snapshot
from caseward.documents.bulk import BulkGroup
from caseward.documents.case import ActionDocument, CaseDocument
from caseward.documents.parts import ReasonDocument
from caseward.errors import InputInvalid
from caseward.overrides import OVERRIDES
from caseward.process import Process
from caseward.situation import Actor, cause_words

router = console_router()

CASES = 50  # of a page
FIRST = 5  # tried before the others, as the API has it; but never more than half
# What people call the bounds of an order.
TITLES = {"canary": "First ones", "rate": "Rate", "stop_after": "Stop by itself at", "look": "Look at the first ones"}


class Shown(GroupChosen):
    """A group, and from where on its cases are listed."""

    since: AwareDatetime | None = None
    key: Text | None = None
    nothing_chosen: bool = False
    """No case was ticked."""


class Chosen(GroupChosen):
    """A group, or only those of its cases that were ticked."""

    case: Annotated[tuple[UUID, ...], Field(max_length=CASES)] = ()
    ticked: bool = False
    """Only those are meant, so that none ticked is not all of them."""


def group_href(group: BulkGroup | GroupChosen, path: str = "/console/bulk/group", **more: Any) -> str:
    """The address of something about this group."""
    named = {name: getattr(group, name) for name in ("process", "step", "partner", "fingerprint")}
    query = {name: value for name, value in {**named, **more}.items() if value is not None}
    return f"{path}?{urlencode(query, doseq=True)}"


@dataclass(frozen=True)
class Ordering:
    """A group on its way to an order, with the oldest of its cases as the example of them all."""

    wiring: Wiring
    actor: Actor
    group: BulkGroup
    oldest: BlockedCase
    case: CaseDocument
    cases: Sequence[BlockedCase]
    only: tuple[UUID, ...]
    """The cases that were ticked; empty where all are meant."""
    gone: int
    """How many of those are no longer blocked as they were seen."""

    @property
    def process(self) -> Process:
        """Of every case in it."""
        return self.wiring.catalogue[self.group.process]

    @property
    def limit(self) -> int | None:
        """What the partner takes a second, from all runs together."""
        return self.wiring.catalogue.limits.get(self.group.partner or "")

    def action(self, name: str) -> ActionDocument:
        """The override as the oldest case has it, of the very step that blocks."""
        mine = [each for each in self.case.actions if (each.kind, each.name) == ("override", name)]
        if not OVERRIDES[name].per_step:
            return mine[0]
        step, item = self.group.step, self.oldest.item
        exactly = (each for each in mine if (each.step, each.item) == (step, item))
        return next(exactly, mine[0]).model_copy(update={"step": step, "item": item})

    def never(self, action: ActionDocument) -> Sequence[ReasonDocument]:
        """Why this actor can't do it to any of them, wherever they stand."""
        return [reason for reason in action.reasons if reason.code in NEVER]

    @property
    def actions(self) -> Sequence[tuple[ActionDocument, Sequence[ReasonDocument]]]:
        """Every override that is for bulk, with why this actor can't order it."""
        found = [self.action(name) for name in OVERRIDES if name not in NOT_IN_BULK]
        return [(action, self.never(action)) for action in found]

    async def consequences(self, action: ActionDocument) -> Consequences:
        """What would follow for the oldest case."""
        catalogue = self.wiring.catalogue
        async with self.wiring.database.transaction() as session:
            return await consequences(session, catalogue, self.process, self.case, action, self.actor)

    def fields(self, action: ActionDocument, given: forms.Json, errors: Mapping[str, str]) -> Sequence[forms.Field]:
        """What the API's body takes: the reason, what the override itself takes, and the bounds."""
        order = Order.model_json_schema()["properties"]
        own = OVERRIDES[action.name].input.model_json_schema()
        result = result_schema(self.process, action.step) if action.name == "mark_done" else {}
        left_out = PER_ITEM | {"happened", "result"}
        asked = {name: each for name, each in own["properties"].items() if name not in left_out}
        schema: forms.Json = {
            "properties": {
                "reason": order["reason"],
                "input": {
                    "properties": {**result.get("properties", {}), **asked},
                    "required": result.get("required", []),
                },
                **{name: order[name] for name in TITLES},
            },
            "required": ["reason", "input", "canary", "stop_after", "look"],
            "$defs": {**own.get("$defs", {}), **result.get("$defs", {})},
        }
        shown = forms.Form(schema, given, errors)
        made = [replace(each, title=TITLES.get(each.name, each.title)) for each in shown.fields()]
        if action.name in {"retry", "skip"} and self.group.unknown:
            said = given.get("input")
            known = cast("forms.Json", said) if isinstance(said, dict) else {}
            made.insert(1, happened(known, errors, prefix="input."))
        return made

    @property
    def usual(self) -> forms.Json:
        """What the form is filled in with."""
        rate = DEFAULT_RATE if self.limit is None else min(DEFAULT_RATE, self.limit)
        first = min(FIRST, max(1, self.group.count // 2))
        return {"canary": first, "rate": rate, "stop_after": min(3, first), "look": True}


async def _ordering(
    wiring: Wiring, actor: Actor, chosen: GroupChosen, *, only: tuple[UUID, ...] = (), behind: Any = None
) -> Ordering:
    """The group as it stands now, up to the instant that it names. Raises what `find_group` raises."""
    async with wiring.database.transaction() as session:
        await snapshot(session)
        group = await find_group(session, wiring.catalogue, chosen.as_group(), actor=actor, only=only)
        first = await blocked_cases(session, group, until=chosen.until, only=only, limit=CASES + 1)
        if not first:
            raise nothing_blocked(only)
        case = await get_case(session, wiring.catalogue, case_id=first[0].case_id, actor=actor)
        left_out = gone(only, await blocked_in(session, group, until=chosen.until, only=only)) if only else 0
        cases = first
        if behind is not None:
            cases = await blocked_cases(session, group, until=chosen.until, after=behind, limit=CASES + 1)
    return Ordering(wiring, actor, group, first[0], case, cases, only, left_out)


@router.get("/console/bulk/group")
async def show_group(request: Request, wiring: Wired, actor: Operator, shown: Annotated[Shown, Query()]) -> Response:
    """A group: its cases, the oldest first, and what may be ordered over them. Raises ActionNotAllowed."""
    await OVERSEES(actor)
    behind = (shown.since, shown.key) if shown.since is not None and shown.key is not None else None
    ordering = await _ordering(wiring, actor, shown, behind=behind)
    last = ordering.cases[CASES - 1] if len(ordering.cases) > CASES else None
    return page(
        request,
        "bulk_group.html",
        group=ordering.group,
        process=ordering.process,
        ordering=ordering,
        cases=ordering.cases[:CASES],
        behind=behind,
        nothing_chosen=shown.nothing_chosen,
        following=last and group_href(shown, since=last.since.isoformat(), key=last.key),
        group_href=group_href,
        cause_words=cause_words,
    )


def _bulk_override(name: str) -> str:
    if name not in OVERRIDES or name in NOT_IN_BULK:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return name


async def _form_page(
    request: Request,
    ordering: Ordering,
    override: str,
    *,
    until: Any,
    given: forms.Json | None = None,
    errors: Mapping[str, str] | None = None,
    key: str | None = None,
) -> Response:
    action, wrong = ordering.action(override), errors or {}
    fields = ordering.fields(action, ordering.usual if given is None else given, wrong)
    return page(
        request,
        "bulk_order.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong else 200,
        group=ordering.group,
        process=ordering.process,
        ordering=ordering,
        action=action,
        never=ordering.never(action),
        fields=fields,
        own={"key": key or str(uuid4())},
        href=group_href(ordering.group, f"/console/bulk/order/{override}", until=until.isoformat(), case=ordering.only),
        group_href=group_href,
        consequences=await ordering.consequences(action),
        unknown=unknown(ordering.case, action),
        cause_words=cause_words,
        wrong=forms.elsewhere(wrong, fields),
        default_rate=DEFAULT_RATE,
    )


@router.get("/console/bulk/order/{override}")
async def ask(
    request: Request, wiring: Wired, actor: Operator, override: str, chosen: Annotated[Chosen, Query()]
) -> Response:
    """The form of an order, with what would follow. Raises ActionNotAllowed, InputInvalid."""
    await OVERSEES(actor)
    if chosen.ticked and not chosen.case:
        return RedirectResponse(group_href(chosen, nothing_chosen="true"), HTTPStatus.SEE_OTHER)
    ordering = await _ordering(wiring, actor, chosen, only=chosen.case)
    # Never later, whatever the address says: what is blocked after this page was made was not seen.
    return await _form_page(request, ordering, _bulk_override(override), until=ordering.group.latest)


@router.post("/console/bulk/order/{override}")
async def order(
    request: Request,
    wiring: Wired,
    envelope: KeyedForm,
    form: Form,
    override: str,
    chosen: Annotated[Chosen, Query()],
) -> Response:
    """Order it, exactly as the API's route would. Raises ActionNotAllowed, IdempotencyKeyReused."""
    await OVERSEES(envelope.actor)
    name = _bulk_override(override)
    given, errors = forms.decoded({field: value for field, value in form.items() if field != "key"})
    try:
        if not errors:
            body = _body(name, chosen, given)
            async with wiring.command() as session:
                bulk_id = await order_bulk(session, wiring.catalogue, order=body.as_order(), envelope=envelope)
            return RedirectResponse(f"/console/bulk/{bulk_id}", HTTPStatus.SEE_OTHER)
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    except InputInvalid as refused:
        errors = {each["field"]: each["message"] for each in refused.members.get("errors", ())} or {"": refused.detail}
    ordering = await _ordering(wiring, envelope.actor, chosen, only=chosen.case)
    until = chosen.until or ordering.group.latest
    return await _form_page(request, ordering, name, until=until, given=given, errors=errors, key=form["key"])


def _body(override: str, chosen: Chosen, given: forms.Json) -> Order:
    """The API's body. Raises ValidationError; InputInvalid for what the override itself takes."""
    meant: forms.Json = {"override": override, "group": chosen.model_dump(exclude={"case", "ticked"})}
    if chosen.case:
        meant["case_ids"] = chosen.case
    body = cast("Order", forms.checked(Order, {**given, **meant}))
    try:
        own = forms.checked(OVERRIDES[override].input, {**body.input, "reason": body.reason})
    except ValidationError as fault:
        raise InputInvalid("The input is wrong.", errors=field_errors(fault, ("input",))) from fault
    # As JSON would have had it: a form's fields are all text.
    return body.model_copy(update={"input": own.model_dump(mode="json", exclude_unset=True, exclude=PER_ITEM)})
