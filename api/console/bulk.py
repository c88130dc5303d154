"""Bulk recovery: what is blocked alike, the runs over it, and one run, live until it is over."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal, cast
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import RedirectResponse

from api.console import Place, forms
from api.console.bulk_order import group_href
from api.console.door import Form, Operator, console_router
from api.console.pages import page
from api.deps import OPERATES, OVERSEES, Wired, Wiring
from api.errors import ProcessNotFound
from api.routes_bulk import Note
from api.routes_cases import MAX_NUMBER
from caseward.bulk import ITEM_STATES, ItemState
from caseward.cases.blocked import blocked_groups
from caseward.cases.bulk import continue_bulk, stop_bulk
from caseward.cases.bulk_queries import get_bulk, list_bulk, list_items
from caseward.cases.commands import field_errors
from caseward.cases.queries import snapshot
from caseward.documents.bulk import BulkDocument
from caseward.errors import ActionNotAllowed
from caseward.overrides import OVERRIDES
from caseward.process import Catalogue
from caseward.situation import Actor, address_title, cause_words

router = console_router()
PLACE = Place("Bulk recovery", "/console/bulk", OVERSEES.roles)

RUNS, ITEMS = 20, 50  # of a page
Say = Literal["continue", "stop"]
SAYS: Mapping[str, Any] = {"continue": continue_bulk, "stop": stop_bulk}
# While a run is in one of these states, this may be said to it.
SAID_WHILE: Mapping[str, frozenset[str]] = {
    "continue": frozenset({"looking"}),
    "stop": frozenset({"canary", "looking", "ramping"}),
}
# How a state of a run or of a case is coloured, and what it means; the words are what counts.
RUN_TONES = {"canary": "info", "looking": "warn", "ramping": "info", "stopped": "bad", "completed": "good"}
ITEM_TONES: Mapping[ItemState, str] = {
    "repaired": "good",
    "acknowledged": "odd",
    "proposed": "warn",
    "blocked_again": "bad",
    "refused": "bad",
    "moved": "",
    "begun": "info",
    "sent": "info",
    "frozen": "",
    "left": "",
}
MEANINGS: Mapping[ItemState, str] = {
    "frozen": "Before its turn.",
    "begun": "Its turn has come.",
    "sent": "The override is accepted, and nothing is known yet.",
    "acknowledged": "The partner took it and will do it later.",
    "proposed": "Somebody else has to confirm it; the run does no more about it.",
    "repaired": "The effect succeeded, or the operation went on.",
    "blocked_again": "It failed again, and stands in a group again.",
    "refused": "By the policy, or for its input.",
    "moved": "It was no longer blocked like that, or was taken over meanwhile; nothing was done.",
    "left": "The run stopped before its turn.",
}


class Items(BaseModel):
    """Which cases of a run are shown, as it stands in the address."""

    model_config = ConfigDict(extra="forbid")

    state: ItemState | None = None
    after: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0


def run_title(catalogue: Catalogue, run: BulkDocument) -> str:
    """What the run does, to what."""
    title = OVERRIDES[run.override].title
    process = catalogue.get(run.group["process"]) if run.group else None
    if run.group is None or process is None:
        return f"{title}: cases named one by one"
    step = run.group["step"]
    what = address_title(process, step) if step else "the story itself"
    return f"{title}: {what}{', chosen cases' if run.chosen else ''}"


def drawn(run: BulkDocument) -> list[tuple[str, float, float]]:
    """The bar of a run, from its left: tone, where it begins and how wide it is, in per cent."""
    parts: list[tuple[str, float, float]] = []
    at = 0.0
    for state, tone in ITEM_TONES.items():
        width = 100 * run.counts[state] / run.total if run.total else 0
        if width and state != "frozen":
            parts.append((tone, round(at, 2), round(width, 2)))
        at += width
    return parts


@router.get("/console/bulk")
async def overview(
    request: Request, wiring: Wired, actor: Operator, process: str | None = None, before: UUID | None = None
) -> Response:
    """Groups and runs, of every process or of one. Raises ActionNotAllowed, ProcessNotFound."""
    await OVERSEES(actor)
    name = process.replace("-", "_") if process else None
    if name is not None and name not in wiring.catalogue:
        raise ProcessNotFound
    async with wiring.database.transaction() as session:
        await snapshot(session)
        groups = (await blocked_groups(session, wiring.catalogue, actor=actor, process=name)).groups
        runs = await list_bulk(session, state=None, process=name, before=before, limit=RUNS)
    return page(
        request,
        "bulk.html",
        groups=groups,
        runs=runs.runs,
        older=runs.runs[-1].bulk_id if runs.next else None,
        chosen=name,
        processes=[each for each in wiring.catalogue.values() if each.visible_to(actor.roles)],
        catalogue=wiring.catalogue,
        group_href=group_href,
        cause_words=cause_words,
        run_title=run_title,
        run_tones=RUN_TONES,
        drawn=drawn,
    )


async def _run_page(
    request: Request,
    wiring: Wiring,
    actor: Actor,
    bulk_id: UUID,
    wanted: Items,
    *,
    refused: ActionNotAllowed | None = None,
) -> Response:
    async with wiring.database.transaction() as session:
        await snapshot(session)
        run = await get_bulk(session, bulk_id=bulk_id)
        items = await list_items(session, bulk_id=bulk_id, state=wanted.state, after=wanted.after, limit=ITEMS)
    return page(
        request,
        "bulk_run.html",
        status=refused.http_status if refused else 200,
        run=run,
        title=run_title(wiring.catalogue, run),
        items=items.items,
        following=items.items[-1].number if items.next else None,
        wanted=wanted,
        refused=refused,
        says=[say for say, states in SAID_WHILE.items() if run.state in states],
        operates=OPERATES.lets(actor),
        states=ITEM_STATES,
        meanings=MEANINGS,
        tones=ITEM_TONES,
        run_tones=RUN_TONES,
        drawn=drawn,
    )


@router.get("/console/bulk/{bulk_id}")
async def run(
    request: Request, wiring: Wired, actor: Operator, bulk_id: UUID, wanted: Annotated[Items, Query()]
) -> Response:
    """One run, with a page of its cases. Raises ActionNotAllowed, BulkNotFound."""
    await OVERSEES(actor)
    return await _run_page(request, wiring, actor, bulk_id, wanted)


async def _say_page(
    request: Request, wiring: Wiring, bulk_id: UUID, say: Say, errors: Mapping[str, str], given: forms.Json
) -> Response:
    async with wiring.database.transaction() as session:
        run = await get_bulk(session, bulk_id=bulk_id)
    fields = forms.Form(Note.model_json_schema(), given, errors).fields()
    return page(
        request,
        "bulk_say.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if errors else 200,
        run=run,
        title=run_title(wiring.catalogue, run),
        say=say,
        possible=run.state in SAID_WHILE[say],
        fields=fields,
        wrong=forms.elsewhere(errors, fields),
        tones=ITEM_TONES,
        run_tones=RUN_TONES,
    )


@router.get("/console/bulk/{bulk_id}/{say}")
async def ask(request: Request, wiring: Wired, actor: Operator, bulk_id: UUID, say: Say) -> Response:
    """Before it goes on, or stops: what follows, and why. Raises ActionNotAllowed, BulkNotFound."""
    await OPERATES(actor)
    return await _say_page(request, wiring, bulk_id, say, {}, {})


@router.post("/console/bulk/{bulk_id}/{say}")
async def tell(request: Request, wiring: Wired, actor: Operator, form: Form, bulk_id: UUID, say: Say) -> Response:
    """Let it go on, or stop it; twice does it once. Raises ActionNotAllowed, BulkNotFound."""
    await OPERATES(actor)
    given, errors = forms.decoded(form)
    try:
        if not errors:
            body = cast("Note", forms.checked(Note, given))
            async with wiring.command() as session:
                await SAYS[say](session, bulk_id=bulk_id, actor=actor, reason=body.reason)
            return RedirectResponse(f"/console/bulk/{bulk_id}", HTTPStatus.SEE_OTHER)
    except ValidationError as fault:
        errors = {each["field"]: each["message"] for each in field_errors(fault)}
    except ActionNotAllowed as refused:  # it has moved on: it shows where it stands now
        return await _run_page(request, wiring, actor, bulk_id, Items(), refused=refused)
    return await _say_page(request, wiring, bulk_id, say, errors, given)
