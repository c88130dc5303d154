"""Work: what needs a person now, why, since when, and the next action at hand."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import Path, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import RedirectResponse

from api.console import Place
from api.console.case import act_href
from api.console.door import Operator, SignedIn, console_router
from api.console.pages import page
from api.console.saved import saved_views
from api.deps import OPERATES, OVERSEES, Wired, Wiring
from api.routes_cases import MAX_ID, Cursor, Search, Text
from caseward.cases import queries
from caseward.cases.callbacks import list_callbacks
from caseward.cases.parked import requeue_message
from caseward.documents.callbacks import CallbackDocument
from caseward.documents.case import CaseDocument, CaseRow, ConditionInfo
from caseward.documents.outbox import MessageDocument
from caseward.process import OPERATOR, SENIOR_OPERATOR, Catalogue, Escalate
from caseward.situation import Actor, ConditionName

router = console_router()
PLACE = Place("Work", "/console/work")

SAVE_AT = "/console/views"
KNOWN = "X-Known"  # the sign of what an open page shows
SOME, A_PAGE = 6, 25  # cases of each section at a glance, and of one list
# For so many of a page it is looked up what this actor may do; that is dear, and whoever sees more filters or clicks.
SUGGESTIONS = 10
# What people call the filters.
FILTERS = {
    "condition": "Condition",
    "process": "Process",
    "state": "State",
    "recovery_owner": "Who decides",
    "waiting_on": "Waiting on",
    "assignee": "Claimed by",
    "q": "Key or id",
    "proposals": "To be confirmed",
    "overdue": "Overdue",
}
# What suggests itself first, by condition; anything else is a click further, on the case's page.
SUGGESTED = {"blocked": "retry", "retrying": "retry", "paused": "resume"}


def _given(value: object) -> object:
    """What a form leaves empty was not asked for, and spaces around a key come from copying it."""
    return (value.strip() or None) if isinstance(value, str) else value


def _wanted(value: object) -> object:
    """`/console/work?overdue=` asks for nothing."""
    return {"": None, "on": True}.get(str(value), value) if isinstance(value, str) else value


Maybe = BeforeValidator(_given)
Flag = Annotated[bool | None, BeforeValidator(_wanted)]


class Filter(BaseModel):
    """What the list may be asked for, as it stands in the address."""

    model_config = ConfigDict(extra="forbid")

    condition: Annotated[ConditionName | None, Maybe] = None
    process: Annotated[Text | None, Maybe] = None
    state: Annotated[Text | None, Maybe] = None
    recovery_owner: Annotated[Text | None, Maybe] = None
    waiting_on: Annotated[Text | None, Maybe] = None
    assignee: Annotated[Text | None, Maybe] = None
    proposals: Flag = None
    overdue: Flag = None
    q: Annotated[Search | None, Maybe] = None
    cursor: Annotated[Cursor | None, Maybe] = None

    @property
    def named(self) -> dict[str, str]:
        """The filters that are set, as they stand in an address."""
        found = self.model_dump(exclude_none=True, exclude={"cursor"})
        return {name: "true" if value is True else str(value) for name, value in found.items()}


@dataclass(frozen=True)
class View:
    """A filter of one's own."""

    name: str
    wanted: Filter | None
    """None where what was saved is no filter any more: a later version may know others."""

    @property
    def href(self) -> str | None:
        """Its address."""
        return address(self.wanted) if self.wanted else None


@dataclass(frozen=True)
class Next:
    """A move that suggests itself: its title, and where it is made."""

    title: str
    href: str


@dataclass(frozen=True)
class Row:
    """A case in the list, with what is happening to it in words."""

    row: CaseRow
    info: ConditionInfo
    next: Next | None
    """What this actor may do about it first, as far as it was looked up."""


@dataclass(frozen=True)
class Asked:
    """A section as the list of cases answers it."""

    title: str
    rows: Sequence[CaseRow]
    more: str | None
    mine: bool
    """Whether they wait for this very person, who may act on each."""


@dataclass(frozen=True)
class Section:
    """Cases that need the same kind of move."""

    title: str
    rows: Sequence[Row]
    more: str | None
    """The address of the whole list, where there is more of it."""

    @property
    def alike(self) -> int:
        """How many of those shown are blocked for one and the same reason."""
        reasons = Counter((each.row.process, each.info.fingerprint) for each in self.rows if each.info.fingerprint)
        return max(reasons.values(), default=0)


@router.get("/console/work")
async def work(
    request: Request, wiring: Wired, signed_in: SignedIn, actor: Operator, wanted: Annotated[Filter, Query()]
) -> Response:
    """What needs this actor, or anybody; with a filter, one list of it. A page that is up to date hears just that."""
    async with wiring.database.transaction() as session:
        sign = _digest(await queries.sign_of_work(session), actor)
        if request.headers.get(KNOWN) == sign:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        own = await own_views(session, signed_in.actor)
        opens = await queries.openings(session, wiring.catalogue, actor=actor)
    choices = _choices(wiring)
    shown: dict[str, Any] = {
        "actor": actor,
        "filters": FILTERS,
        "titles": {(name, value): title for name, listed in choices.items() for value, title in listed},
        "wanted": wanted,
        "views": _views(actor),
        "save_at": SAVE_AT,
        "choices": choices,
        "in_bulk": OVERSEES.lets(actor),
        "sign": sign,
        "own": [view for view in own if view.wanted],
        "opens": [process for name, process in wiring.catalogue.items() if opens[name].allowed],
    }
    if wanted.named:
        async with wiring.database.transaction() as session:
            await queries.snapshot(session)
            asked = [await _section(session, wiring, actor, "Cases", wanted, limit=A_PAGE)]
            (section,) = await _told(session, wiring, actor, asked)
        only = section.rows[0].row if len(section.rows) == 1 and wanted.named.keys() == {"q"} else None
        # A page that looks again for itself stays the list that it is.
        if only is not None and wanted.cursor is None and "hx-request" not in request.headers:
            return RedirectResponse(f"/console/cases/{only.case_id}", HTTPStatus.SEE_OTHER)
        return page(request, "work.html", sections=[section], parked=(), callbacks=(), **shown)
    asked: list[Asked] = []
    parked: Sequence[MessageDocument] = ()
    callbacks: Sequence[CallbackDocument] = ()
    more_parked = False
    async with wiring.database.transaction() as session:
        await queries.snapshot(session)
        for title, view, mine in _glance(wiring.catalogue, actor):
            asked.append(await _section(session, wiring, actor, title, view, limit=SOME, mine=mine))
        sections = await _told(session, wiring, actor, [section for section in asked if section.rows])
        if OVERSEES.lets(actor):
            found = await queries.parked_messages(session, parked=True, limit=SOME)
            parked, more_parked = found.messages, found.next is not None
            callbacks = (await list_callbacks(session, parked=True, limit=SOME + 1)).callbacks
    shown |= {"more_parked": more_parked, "more_callbacks": len(callbacks) > SOME}
    shown |= {"parked": parked, "callbacks": callbacks[:SOME], "releases": OPERATES.lets(actor)}
    return page(request, "work.html", sections=sections, **shown)


async def _section(
    session: AsyncSession, wiring: Wiring, actor: Actor, title: str, wanted: Filter, *, limit: int, mine: bool = False
) -> Asked:
    asked = queries.CaseFilter(**wanted.model_dump(), limit=limit)
    found = await queries.list_cases(session, wiring.catalogue, wanted=asked, actor=actor)
    more = None
    if found.next:
        query = dict(wanted.named)
        if limit == A_PAGE:
            query["cursor"] = parse_qs(urlsplit(found.next).query)["cursor"][0]
        more = f"/console/work?{urlencode(query)}"
    return Asked(title, found.cases, more, mine)


async def _told(session: AsyncSession, wiring: Wiring, actor: Actor, sections: Sequence[Asked]) -> list[Section]:
    """The sections in words, and some of their cases with the next action: first those that wait for this person."""
    rows = {row.case_id: row for section in sections for row in section.rows}
    infos = await queries.list_conditions(session, wiring.catalogue, rows=list(rows.values()))
    urgent = [row.case_id for section in sorted(sections, key=lambda section: not section.mine) for row in section.rows]
    chosen = list(dict.fromkeys(urgent))[:SUGGESTIONS]
    cases = await queries.get_cases(session, wiring.catalogue, case_ids=chosen, actor=actor)
    following = {case_id: _next(case) for case_id, case in cases.items()}
    return [
        Section(
            section.title,
            [Row(row, infos[row.case_id], following.get(row.case_id)) for row in section.rows],
            section.more,
        )
        for section in sections
    ]


def _next(case: CaseDocument) -> Next | None:
    """What was proposed comes before anything that would go around it."""
    if case.proposals:
        mine = (proposal for proposal in case.proposals if proposal.confirm.allowed)
        return next((Next("Confirm", f"/console/operations/{each.operation_id}/confirm") for each in mine), None)
    allowed = [action for action in case.actions if action.allowed]
    first = SUGGESTED.get(case.condition)
    moves = [action for action in allowed if action.kind == "transition" and case.condition == "waiting"]
    chosen = next((action for action in allowed if action.name == first), next(iter(moves), None))
    return chosen and Next(chosen.title, act_href(case.case_id, chosen))


def _glance(catalogue: Catalogue, actor: Actor) -> list[tuple[str, Filter, bool]]:
    """What is looked at without being asked, the most urgent first; and whether it waits for this very person."""
    waiting = {state.waiting_on for process in catalogue.values() for state in process.states}
    called = {
        state.deadline.then.role
        for process in catalogue.values()
        for state in process.states
        if state.deadline and isinstance(state.deadline.then, Escalate)
    }
    mine = sorted(role for role in actor.roles if role in waiting | called)
    own = [
        *(
            (f"Waiting for you as {role.replace('_', ' ')}", Filter(condition="waiting", waiting_on=role), True)
            for role in mine
        ),
        ("Claimed by you", Filter(assignee=actor.id), True),
    ]
    blocked = ("Blocked", Filter(condition="blocked"), False)
    repairs = bool(actor.roles & {OPERATOR, SENIOR_OPERATOR})
    return [
        *([blocked] if repairs else own),
        ("To be confirmed", Filter(proposals=True), False),
        *(own if repairs else [blocked]),
        ("Overdue", Filter(overdue=True), False),
        ("Trying again", Filter(condition="retrying"), False),
        ("Being taken back", Filter(condition="undoing"), False),
        ("Paused", Filter(condition="paused"), False),
    ]


def _digest(sign: str, actor: Actor) -> str:
    """The sign as this actor's page has it: what it shows depends on their roles too."""
    return hashlib.sha256("\0".join([sign, actor.id, *sorted(actor.roles)]).encode()).hexdigest()


def address(wanted: Filter) -> str:
    """Where this filter is applied."""
    return f"/console/work?{urlencode(wanted.named)}"


async def own_views(session: AsyncSession, actor: Actor) -> Sequence[View]:
    """What this actor has saved, by name."""
    return [View(each.name, _still_a_filter(each.filter)) for each in await saved_views(session, actor.id)]


def _still_a_filter(saved: Mapping[str, Any]) -> Filter | None:
    try:
        wanted = Filter.model_validate(saved)
    except ValidationError:
        return None
    return wanted if wanted.named else None


def _views(actor: Actor) -> list[tuple[str, str]]:
    """Addresses worth a click."""
    views: list[tuple[str, dict[str, str]]] = [
        ("At a glance", {}),
        ("Blocked", {"condition": "blocked"}),
        ("To be confirmed", {"proposals": "true"}),
        ("Overdue", {"overdue": "true"}),
        ("Claimed by you", {"assignee": actor.id}),
        ("Running", {"condition": "running"}),
        ("Done", {"condition": "done"}),
    ]
    return [(title, f"/console/work{'?' + urlencode(query) if query else ''}") for title, query in views]


def _title(choice: tuple[str, str]) -> str:
    return choice[1]


def _choices(wiring: Wiring) -> dict[str, list[tuple[str, str]]]:
    """What the filters may be set to, as declared."""
    processes = list(wiring.catalogue.values())
    teams = {team for process in processes for team in process.teams}
    roles = {role.name: role.title for process in processes for role in process.roles}
    conditions = ("blocked", "paused", "undoing", "retrying", "waiting", "running", "queued", "done")
    return {
        "condition": [(name, name) for name in conditions],
        "process": [(process.name, process.title) for process in processes],
        "state": sorted({(state.name, state.title) for process in processes for state in process.states}, key=_title),
        "recovery_owner": [(team, team.replace("_", " ")) for team in sorted(teams | {OPERATOR})],
        "waiting_on": [*roles.items(), *((partner, f"partner {partner}") for partner in sorted(wiring.partners))],
    }


@router.get("/console/messages")
async def messages(
    request: Request, wiring: Wired, actor: Operator, after: Annotated[int, Query(ge=0, le=MAX_ID)] = 0
) -> Response:
    """Messages that were parked, the oldest first. Raises ActionNotAllowed."""
    await OVERSEES(actor)
    async with wiring.database.transaction() as session:
        found = await queries.parked_messages(session, parked=True, after=after)
    shown: dict[str, Any] = {"messages": found.messages, "next": found.next, "releases": OPERATES.lets(actor)}
    return page(request, "messages.html", **shown)


@router.post("/console/messages/{message_id}/requeue")
async def requeue(wiring: Wired, actor: Operator, message_id: Annotated[int, Path(ge=1, le=MAX_ID)]) -> Response:
    """Release a parked message. Raises ActionNotAllowed, MessageNotFound."""
    await OPERATES(actor)
    async with wiring.command() as session:
        message = await requeue_message(session, wiring.catalogue, message_id=message_id, actor=actor)
    return RedirectResponse(f"/console/cases/{message.case_id}", HTTPStatus.SEE_OTHER)
