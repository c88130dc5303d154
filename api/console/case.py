"""The page of a case, live; and what can be taken away from it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from markupsafe import Markup
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.console.door import Operator, SignedIn, console_router, seal
from api.console.pages import page
from api.console.sessions import Session, find_session
from api.deps import AnyOf, Wired, Wiring
from api.routes_cases import MAX_NUMBER
from caseward.cases.documents import list_documents
from caseward.cases.export import evidence, file_name
from caseward.cases.queries import (
    get_case,
    get_operation,
    get_standing,
    latest_entries,
    latest_operations,
    visible_case,
)
from caseward.diagram import diagram
from caseward.documents.attached import AttachedList, KindDocument
from caseward.documents.case import ActionDocument, CaseDocument
from caseward.documents.operation import OperationDocument
from caseward.documents.timeline import EntryDocument
from caseward.policy import Action, action_title
from caseward.process import AUDITOR, ENGINE_ROLES, SENIOR_OPERATOR, Process
from caseward.situation import Actor, address_title

router = console_router()

ENTRIES = 60  # of the timeline on a page; older ones are a click away
OPERATIONS = 20  # of the latest; all of them, up to a bound, are a click away
MOST_OPERATIONS = 500
LOOK_EVERY = timedelta(seconds=5)  # the net below the notices, and how soon a stream ends after its session
VOICES = ("people", "operators", "partners", "machines")
MAY_EXPORT = frozenset({SENIOR_OPERATOR, AUDITOR})
# Entries that tell what a partner answered, whoever wrote them down.
ANSWERS = frozenset(
    {
        *("effect.succeeded", "effect.failed", "effect.outcome_unknown", "effect.acknowledged", "effect.called_back"),
        *("effect.happened_twice", "effect.contradicted", "effect.landed_late"),
    }
)
Number = Annotated[int, Query(ge=1, le=MAX_NUMBER)]


@dataclass(frozen=True)
class CasePage:
    """Everything that the page shows, as documents."""

    process: Process
    case: CaseDocument
    flight: OperationDocument | None
    """The operation in flight, with its attempts."""
    latest: OperationDocument | None
    """While nothing is in flight: what led to where it stands, with the steps that it took."""
    order: OperationDocument | None
    """What this person asked for last, on its way to an outcome."""
    operations: Sequence[OperationDocument]
    more_operations: bool
    entries: Sequence[EntryDocument]
    documents: AttachedList | None
    actor: Actor
    show: str | None
    before: int | None
    whole: bool
    """All operations are shown, not only the latest."""

    @property
    def allowed(self) -> Sequence[ActionDocument]:
        """What this actor may do."""
        return [action for action in self.case.actions if action.allowed]

    def leads_on(self, action: ActionDocument) -> bool:
        """It helps, or leads to a state that is not an end: only such a button suggests itself."""
        transition = self.process.transition(action.name) if action.kind == "transition" else None
        if transition is None:
            return action.name not in {"undo", "skip", "force_cancel"}
        return not all(self.process.state(name).final for name in transition.targets)

    @property
    def refused(self) -> Sequence[ActionDocument]:
        """What they may not, each with its reasons."""
        return [action for action in self.case.actions if not action.allowed]

    @property
    def shown(self) -> Sequence[EntryDocument]:
        """The entries of the voice that was asked for."""
        return [entry for entry in self.entries if self.show in {None, voice(entry)}]

    @property
    def looked_at_by(self) -> Sequence[str]:
        """The moves from here that have documents looked at."""
        return looked_at_by(self.process, self.case.state)

    @property
    def older(self) -> int | None:
        """The number from which on older entries are another page."""
        last = self.entries[-1].number if self.entries else 1
        return last if last > 1 else None

    @property
    def total(self) -> int | None:
        """How many entries there are, as the number of the newest tells; none where only older ones were read."""
        return None if self.before or not self.entries else self.entries[0].number

    @property
    def visited(self) -> frozenset[str]:
        """States in which it has been, as its operations tell."""
        found = [state for each in self.operations for state in (each.from_state, each.case_state, each.to_state)]
        return frozenset(state for state in found if state)

    def kind_of(self, name: str) -> KindDocument | None:
        """A kind of document, while the process declares it."""
        return next((each for each in self.documents.kinds if each.kind == name), None) if self.documents else None

    def title_of(self, operation: OperationDocument) -> str:
        """What people call it."""
        return action_title(self.process, Action(operation.kind, operation.name))  # pyright: ignore[reportArgumentType]

    def step_title(self, address: str) -> str:
        """What people call a step, or the taking back of one."""
        return address_title(self.process, address)

    def picture(self) -> Markup:
        """The process, with where the case is and has been."""
        return Markup(diagram(self.process, current=self.case.state, visited=self.visited, styled=False))  # noqa: S704 - it escapes what it draws


def voice(entry: EntryDocument) -> str:
    """Who speaks in an entry: people of the business, operators, partners or machines."""
    if entry.type in ANSWERS:
        return "partners"
    if entry.actor.via in {"system", "temporal"} or entry.actor.id in {"system", "temporal"}:
        return "machines"
    return "operators" if entry.actor.role in ENGINE_ROLES else "people"


def looked_at_by(process: Process, state: str) -> Sequence[str]:
    """The moves from a state that have documents looked at: until then they are only uploaded."""
    check = process.documents.checked_by if process.documents else None
    return [each.title for each in process.transitions if check in each.steps and state in each.source]


def act_href(case_id: UUID, action: ActionDocument) -> str:
    """Where the form of an action is."""
    about = {"step": action.step, "item": action.item}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in about.items() if value is not None)
    return f"/console/cases/{case_id}/{action.kind}/{action.name}{'?' + query if query else ''}"


async def read_page(
    wiring: Wiring,
    actor: Actor,
    case_id: UUID,
    *,
    order: UUID | None = None,
    show: str | None = None,
    before: int | None = None,
    whole: bool = False,
) -> CasePage:
    """The page of a case, all of it at one instant. Raises CaseNotFound."""
    catalogue = wiring.catalogue
    who: dict[str, Any] = {"case_id": case_id, "actor": actor}
    async with wiring.database.transaction() as session:
        case = await get_case(session, catalogue, **who)
        process = catalogue[case.process]
        most = MOST_OPERATIONS if whole else OPERATIONS
        operations = await latest_operations(session, catalogue, limit=most + 1, **who)
        known = {each.operation_id: each for each in operations}
        asked = known.get(order) if order else None
        if order and asked is None:
            asked = await get_operation(session, catalogue, operation_id=order, actor=actor)
        begun = case.operation or case.latest
        told = known.get(begun.operation_id) if begun else None
        if begun and told is None:
            told = await get_operation(session, catalogue, operation_id=begun.operation_id, actor=actor)
        return CasePage(
            process=process,
            case=case,
            flight=told if case.operation else None,
            latest=None if case.operation else told,
            order=asked if asked and asked.case_id == case_id else None,
            operations=operations[:most],
            more_operations=len(operations) > most,
            entries=await latest_entries(session, catalogue, before=before, limit=ENTRIES, **who),
            documents=await list_documents(session, catalogue, **who) if process.documents else None,
            actor=actor,
            show=show,
            before=before,
            whole=whole,
        )


def case_page(request: Request, shown: CasePage, *, status: int = 200, **context: Any) -> Response:
    """The page, with a refusal above it where there was one."""
    said: Mapping[str, Any] = {"refused": None, "typed": "", **context}
    made = {"shown": shown, "case": shown.case, "act_href": act_href, "voice": voice, "voices": VOICES}
    may_export = bool(MAY_EXPORT & shown.actor.roles)
    return page(request, "case.html", status=status, **made, may_export=may_export, **said)


@router.get("/console/cases/{case_id}")
async def show_case(
    request: Request,
    wiring: Wired,
    actor: Operator,
    case_id: UUID,
    operation: UUID | None = None,
    show: Annotated[str | None, Query(pattern=f"^({'|'.join(VOICES)})$")] = None,
    before: Number | None = None,
    operations: Literal["all"] | None = None,
) -> Response:
    """A case as this actor sees it."""
    whole = operations is not None
    shown = await read_page(wiring, actor, case_id, order=operation, show=show, before=before, whole=whole)
    return case_page(request, shown)


@router.get("/console/cases/{case_id}/stream")
async def stream_case(
    wiring: Wired, signed_in: SignedIn, actor: Operator, case_id: UUID, etag: Annotated[str, Query(max_length=50)]
) -> Response:
    """A word whenever the case is another than the page shows."""
    async with wiring.database.transaction() as session:
        await visible_case(session, wiring.catalogue, case_id, actor)
    response = EventSourceResponse(_changes(wiring, signed_in, case_id, etag), ping=15, send_timeout=30)
    seal(response.headers)
    return response


async def _changes(wiring: Wiring, signed_in: Session, case_id: UUID, known: str) -> AsyncGenerator[ServerSentEvent]:
    """Events until the browser goes, the server stops or the session ends."""
    with wiring.notices.watch(case_id) as watch:
        while not wiring.notices.closing:
            try:
                async with wiring.database.transaction() as session:
                    if await find_session(session, signed_in.key, clicked=False) is None:
                        return
                    standing = await get_standing(session, case_id=case_id)
            except (DBAPIError, PoolExhausted):
                return
            if standing.etag != known:
                known = standing.etag
                yield ServerSentEvent(known, event="case")
            await watch.changed(LOOK_EVERY)


@router.get("/console/cases/{case_id}/changes")
async def changes(
    request: Request,
    wiring: Wired,
    actor: Operator,
    case_id: UUID,
    seen: Annotated[int, Query(ge=0, le=MAX_NUMBER)],
    etag: Annotated[str, Query(max_length=50)] = "",
) -> Response:
    """How the case stands, and what happened behind entry `seen`: for a form that was opened before."""
    async with wiring.database.transaction() as session:
        case = await get_case(session, wiring.catalogue, case_id=case_id, actor=actor)
    behind = await changes_since(wiring, actor, case_id, seen)
    return page(
        request, "changes.html", case=case, changes=behind, pauses_changed=pauses_of(etag) != pauses_of(case.etag)
    )


def pauses_of(etag: str) -> str:
    """What a case's tag says of the pauses that apply."""
    return etag.partition(".")[2]


async def changes_since(wiring: Wiring, actor: Actor, case_id: UUID, seen: int) -> Sequence[EntryDocument]:
    """The entries behind number `seen`, the newest first, as far as a page shows them."""
    async with wiring.database.transaction() as session:
        entries = await latest_entries(session, wiring.catalogue, case_id=case_id, actor=actor, limit=ENTRIES)
    return [entry for entry in entries if entry.number > seen]


@router.get("/console/cases/{case_id}/evidence")
async def export_evidence(wiring: Wired, actor: Operator, case_id: UUID) -> Response:
    """The evidence file, for those to whom the API gives it. Raises ActionNotAllowed."""
    await AnyOf(*MAY_EXPORT)(actor)
    parts = await evidence(wiring.database, wiring.catalogue, case_id=case_id, actor=actor)
    named = {"Content-Disposition": f'attachment; filename="{file_name(case_id)}"'}
    return StreamingResponse(parts, media_type="application/json", headers=named)
