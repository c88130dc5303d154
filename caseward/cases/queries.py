"""Queries: every read, one snapshot each, and never a lock."""

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import and_, func, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from caseward.cases.effects import attempts_of
from caseward.cases.locked import LockedCase, declared_steps, effect_view, left_standing, reused, undoes
from caseward.cases.looking_back import whole_situation, whole_situations
from caseward.cases.operations import all_that_stands, effects_of
from caseward.cases.pauses import NUMBERS, PAUSES, opening_views, paused_processes, process_key
from caseward.cases.proposals import answers_to, given_by, unpacked
from caseward.cases.replay import plan_replay
from caseward.db.tables import Case, Effect, Entry, Message, Operation, ProposalAnswer, Subject
from caseward.documents.case import (
    CaseDocument,
    CaseFacts,
    CaseList,
    CaseRow,
    ConditionInfo,
    LatestOperation,
    case_document,
    condition_info,
)
from caseward.documents.operation import Confirmations, OperationDocument
from caseward.documents.outbox import MessageDocument, MessageList
from caseward.documents.parts import ActorDocument, Document
from caseward.documents.proposal import given_document
from caseward.documents.replay import PlannedStep, ReplayPlan
from caseward.documents.steps import AttemptDocument, step_documents
from caseward.documents.timeline import EntryDocument, Timeline, entry_sentence
from caseward.errors import ActionNotAllowed, CaseNotFound, InputInvalid, OperationNotFound
from caseward.overrides import OVERRIDES
from caseward.policy import Action, Decision, action_title, decide, decide_opening, undo_target
from caseward.process import OPERATOR, Catalogue, Process
from caseward.situation import FINISHED, NEVER_ACCEPTED, Actor, EffectView, PauseView, condition, effect_title

PAGE = 50  # cases or entries a page, unless asked otherwise
MAX_PAGE = 200
FEW = 1000  # matches of a search that are sorted at once; more of them are so many that the newest cases hold a page


@dataclass(frozen=True, kw_only=True)
class CaseFilter:
    """What `GET /v1/cases` may ask for."""

    process: str | None = None
    state: str | None = None
    condition: str | None = None
    recovery_owner: str | None = None
    waiting_on: str | None = None
    business_key: str | None = None
    assignee: str | None = None
    proposals: bool | None = None
    """Whether something of it waits for confirmation."""
    overdue: bool | None = None
    """Whether its state's deadline has passed, and nothing is under way."""
    q: str | None = None
    cursor: str | None = None
    limit: int = PAGE


async def snapshot(session: AsyncSession) -> None:
    """Make every read of this transaction see the same instant. Call it first; more than once is once."""
    if not session.info.get("snapshot"):
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.info["snapshot"] = True


async def get_case(session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, actor: Actor) -> CaseDocument:
    """The case as this actor sees it. Raises CaseNotFound, also for one the actor may not see."""
    await snapshot(session)
    case = await visible_case(session, catalogue, case_id, actor)
    return (await _documents(session, catalogue, [case], actor))[case_id]


async def get_cases(
    session: AsyncSession, catalogue: Catalogue, *, case_ids: Collection[UUID], actor: Actor
) -> dict[UUID, CaseDocument]:
    """Several cases as `get_case` answers them, in a few reads for all of them. What it would not find is left out."""
    await snapshot(session)
    cases = await session.scalars(select(Case).where(Case.id.in_(case_ids)))
    return await _documents(session, catalogue, [case for case in cases if _visible(catalogue, case, actor)], actor)


async def _documents(
    session: AsyncSession, catalogue: Catalogue, cases: Sequence[Case], actor: Actor
) -> dict[UUID, CaseDocument]:
    if not cases:
        return {}
    works = await read_cases(session, catalogue, cases)
    wanted = [(case.id, case.subject_revision) for case in cases]
    rows = await session.scalars(select(Subject).where(tuple_(Subject.case_id, Subject.revision).in_(wanted)))
    subjects = {row.case_id: row for row in rows}  # held, so that the session finds them again by their keys
    situations = await whole_situations(works, actor)
    found: dict[UUID, CaseDocument] = {}
    for work in works:
        case = work.case
        facts = CaseFacts(
            business_key=case.business_key,
            title=case.title,
            subject=subjects[case.id].data,
            subject_revision=case.subject_revision,
            opened_at=case.opened_at,
            changed_at=case.changed_at,
            latest=_latest_document(work),
        )
        found[case.id] = case_document(situations[case.id], facts, actor, work.steps())
    return found


def _latest_document(work: LockedCase) -> LatestOperation | None:
    row = work.latest
    if row is None or row.finished_at is None:
        return None
    return LatestOperation(
        operation_id=row.id,
        kind=row.kind,
        name=row.name,
        title=action_title(work.process, Action(row.kind, row.name)),  # pyright: ignore[reportArgumentType]
        actor=_actor(row),
        reason=row.reason,
        input=row.input,
        finished_at=row.finished_at,
        href=f"/v1/operations/{row.id}",
    )


async def openings(session: AsyncSession, catalogue: Catalogue, *, actor: Actor) -> dict[str, Decision]:
    """By process: whether this actor may open a case of it now, as the command itself would decide."""
    held = await _process_pauses(session, catalogue)
    return {name: decide_opening(process, actor, held[name]) for name, process in catalogue.items()}


async def _process_pauses(session: AsyncSession, names: Iterable[str]) -> dict[str, tuple[PauseView, ...]]:
    """By process: its own pause, where there is one."""
    keys = {name: process_key(name) for name in names}
    pauses = {row.key: row.pause for row in await session.execute(PAUSES, {"keys": list(keys.values())})}
    return {name: opening_views(pauses.get(key)) for name, key in keys.items()}


async def get_plan(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, step: str, actor: Actor, proposed: bool = False
) -> ReplayPlan:
    """What a replay from this step would do now; changes nothing. With `proposed`, what one would that is proposed.

    Raises CaseNotFound, ActionNotAllowed and InputInvalid as the override would, whatever the role of who asks.
    """
    await snapshot(session)
    case = await visible_case(session, catalogue, case_id, actor)
    work = await read_case(session, catalogue, case)
    senior = Actor(actor.id, OVERRIDES["replay"].roles)
    decision = decide(await whole_situation(work, senior), senior, Action("override", "replay"))
    reasons = [each for each in decision.reasons if not (proposed and each.code == "proposal_stands")]
    if reasons:
        raise ActionNotAllowed(reasons, state=case.state, version=case.version)
    return (await plan_replay(work, step)).document


async def get_offsets(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, override: str, actor: Actor
) -> list[PlannedStep]:
    """What `undo` or `force_cancel` would take back if it were accepted now, the latest first; changes nothing.

    Raises CaseNotFound.
    """
    await snapshot(session)
    case = await visible_case(session, catalogue, case_id, actor)
    work = await read_case(session, catalogue, case)
    standing = await session.scalars(select(Effect).where(Effect.case_id == case.id, Effect.standing))
    work.effects.update({effect.key: effect for effect in standing})
    if override == "force_cancel":
        offsets = await all_that_stands(work)
    else:
        target = undo_target(await whole_situation(work, actor))
        offsets = await effects_of(work, await session.get_one(Operation, target.id)) if target else []
    offsets.sort(key=lambda effect: (effect.reserved_at, effect.key), reverse=True)
    return [
        PlannedStep(
            step=effect.step,
            item=effect.item,
            title=effect_title(work.process, effect.step, "undo"),
            action="offset",
            effect=effect.key,
            unknown=effect.outcome == "unknown",
        )
        for effect in offsets
    ]


async def get_operation(
    session: AsyncSession, catalogue: Catalogue, *, operation_id: UUID, actor: Actor
) -> OperationDocument:
    """The operation with its steps and their attempts. Raises OperationNotFound."""
    await snapshot(session)
    operation = await session.get(Operation, operation_id)
    if operation is None or operation.process not in catalogue:
        raise OperationNotFound
    process = catalogue[operation.process]
    if not process.visible_to(actor.roles):
        raise OperationNotFound
    return (await operation_documents(session, process, [operation]))[0]


async def latest_operations(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, actor: Actor, limit: int = PAGE
) -> list[OperationDocument]:
    """The case's operations, the newest first. Raises CaseNotFound."""
    await snapshot(session)
    case = await visible_case(session, catalogue, case_id, actor)
    query = select(Operation).where(Operation.case_id == case_id).order_by(Operation.accepted_at.desc())
    rows = list(await session.scalars(query.limit(limit)))
    return await operation_documents(session, catalogue[case.process], rows)


async def operation_documents(
    session: AsyncSession, process: Process, rows: Sequence[Operation]
) -> list[OperationDocument]:
    """Each with its steps and their attempts."""
    ids = [row.id for row in rows]
    found = await session.scalars(
        select(Effect)
        .where(or_(Effect.operation_id.in_(ids), Effect.driven_by.in_(ids)))
        .order_by(Effect.reserved_at, Effect.key)
    )
    known = {row.key: row for row in found}
    attempts: dict[str, list[AttemptDocument]] = defaultdict(list)
    for row in await attempts_of(session, list(known)):
        attempts[row.effect_key].append(
            AttemptDocument(
                number=row.number,
                outcome=row.outcome,
                started_at=row.started_at,
                ended_at=row.ended_at,
                error=row.error,
            )
        )
    missing = [key for row in rows for key in (*row.offsets, *reused(row)) if key not in known]
    if missing:  # taken on by a later operation
        known |= {row.key: row for row in await session.scalars(select(Effect).where(Effect.key.in_(missing)))}
    undoing = [row for row in rows if row.state not in FINISHED | NEVER_ACCEPTED and undoes(process, row)]
    if undoing:
        cases = {row.case_id for row in undoing}
        standing = await session.scalars(select(Effect).where(Effect.case_id.in_(cases), Effect.standing))
        known |= {row.key: row for row in standing}
    answers = await answers_to(session, [row.id for row in rows if row.proposal is not None])
    documents: list[OperationDocument] = []
    for operation in rows:
        of_case = [row for row in known.values() if row.case_id == operation.case_id]
        owed = [row.key for row in left_standing(process, operation, of_case)] if operation in undoing else []
        offsets = [*operation.offsets, *(key for key in owed if key not in operation.offsets)]
        concerned = {
            row.key: effect_view(row)
            for row in known.values()
            if operation.id in {row.operation_id, row.driven_by} or row.key in {*offsets, *reused(operation)}
        }
        given = _confirmations(operation, answers[operation.id])
        documents.append(_operation_document(process, operation, concerned, offsets, attempts, given))
    return documents


def _operation_document(
    process: Process,
    operation: Operation,
    effects: Mapping[str, EffectView],
    offsets: Sequence[str],
    attempts: Mapping[str, list[AttemptDocument]],
    confirmations: Confirmations,
) -> OperationDocument:
    theirs = {*operation.offsets, *reused(operation)}
    mine = [e for e in effects.values() if e.operation_id == operation.id or e.key in theirs or e.questioned]
    compensations = [e for e in effects.values() if e.direction == "undo" and e not in mine]
    shown = [e for e in mine if e.key not in offsets or e.operation_id == operation.id or e.unsettled]
    steps = step_documents(
        process,
        declared_steps(process, operation),
        [*shown, *compensations],
        [effects[key] for key in offsets],
        attempts,
    )
    steps = [step.model_copy(update={"attempts": step.attempts or []}) for step in steps]
    finished = operation.state in FINISHED
    open_owner = next(
        (s.recovery_owner for s in steps if s.state in {"paused", "blocked", "retrying", "waiting"}), process.owner
    )
    if operation.state == "proposed":  # those who may confirm decide next
        proposed = unpacked(operation)
        open_owner = " or ".join(sorted(proposed.confirmation.roles)) if proposed else open_owner
    return OperationDocument(
        operation_id=operation.id,
        kind=operation.kind,
        name=operation.name,
        case_id=operation.case_id,
        process=operation.process,
        state=operation.state,
        actor=_actor(operation),
        reason=operation.reason,
        input=operation.input,
        from_state=operation.from_state,
        case_state=operation.case_state,
        to_state=operation.to_state,
        supersedes=operation.supersedes,
        superseded_by=operation.superseded_by,
        acts_on=operation.acts_on,
        step=operation.step,
        item=operation.item,
        confirmations=confirmations,
        plan=operation.plan,
        recovery_owner=None if finished else (operation.blocked or {}).get("recovery_owner", open_owner),
        blocked=operation.blocked,
        steps=steps,
        bulk_id=operation.bulk_id,
        accepted_at=None if operation.state in NEVER_ACCEPTED else operation.accepted_at,
        dispatched_at=operation.dispatched_at,
        started_at=operation.started_at,
        finished_at=operation.finished_at,
    )


def _actor(operation: Operation) -> ActorDocument:
    return ActorDocument(
        id=operation.actor_id,
        role=operation.actor_role,
        via=operation.actor_via,
        on_behalf_of=operation.on_behalf_of,
    )


def _confirmations(operation: Operation, answers: Sequence[ProposalAnswer]) -> Confirmations:
    proposed = unpacked(operation)
    if proposed is None:
        return Confirmations()
    return Confirmations(
        needed=operation.confirmations,
        given=[given_document(given_by(answer)) for answer in answers if answer.answer == "confirmed"],
        declined=next((given_document(given_by(answer)) for answer in answers if answer.answer == "declined"), None),
        proposed_at=proposed.at,
        expires_at=operation.expires_at,
    )


class Standing(Document):
    """Where a case stands, for whoever waits for it to move."""

    case_id: UUID
    version: int
    etag: str = ""
    state: str
    condition: str
    operation_state: str | None = None
    """Of the operation asked for."""


async def get_standing(session: AsyncSession, *, case_id: UUID, operation_id: UUID | None = None) -> Standing:
    """Where a case stands that somebody was admitted to before. Raises CaseNotFound."""
    row = (
        await session.execute(
            select(Case.version, Case.state, Case.condition, Operation.state, NUMBERS)
            .outerjoin(Operation, Operation.id == operation_id)
            .where(Case.id == case_id)
        )
    ).one_or_none()
    if row is None:
        raise CaseNotFound
    version, state, current, operation_state, number = row
    return Standing(
        case_id=case_id,
        version=version,
        etag=f"{version}.{number}" if number else str(version),
        state=state,
        condition=current,
        operation_state=operation_state,
    )


async def list_cases(session: AsyncSession, catalogue: Catalogue, *, wanted: CaseFilter, actor: Actor) -> CaseList:
    """A page of the cases that this actor may see, newest change first. Raises InputInvalid for a foreign cursor."""
    visible = [name for name, process in catalogue.items() if process.visible_to(actor.roles)]
    query = select(Case).where(Case.process.in_(visible))
    exact = ("process", "state", "condition", "recovery_owner", "waiting_on", "business_key", "assignee")
    paused = await _paused(session, catalogue)
    held = and_(Case.process.in_(paused), Case.paused.is_(None), ~and_(Case.final, Case.operation_id.is_(None)))
    # What a process's pause makes of its cases; none of their rows is touched when it begins or ends.
    instead = {"condition": "paused", "recovery_owner": OPERATOR, "waiting_on": None} if paused else {}
    for name in exact:
        value = getattr(wanted, name)
        if value is not None and name in instead:
            own = and_(~held, getattr(Case, name) == value)
            query = query.where(or_(held, own) if instead[name] == value else own)
        elif value is not None:
            query = query.where(getattr(Case, name) == value)
    if wanted.proposals is not None:
        query = query.where(Case.proposals > 0 if wanted.proposals else Case.proposals == 0)
    if wanted.overdue is not None:
        at_rest = and_(Case.deadline_at.is_not(None), Case.operation_id.is_(None))
        late = and_(at_rest, Case.deadline_at < func.now())
        query = query.where(late if wanted.overdue else or_(~at_rest, Case.deadline_at >= func.now()))
    few = False
    if wanted.q:
        matching = _matches(wanted.q)
        query = query.where(matching)
        found = select(Case.id).where(matching).limit(FEW + 1)
        few = (await session.scalar(select(func.count()).select_from(found.subquery())) or 0) <= FEW
    if wanted.cursor:
        changed_at, case_id = _decode(wanted.cursor)
        query = query.where(tuple_(Case.changed_at, Case.id) < (changed_at, case_id))
    # Found first and sorted then: the planner would rather go through all cases from the newest on until it has met
    # enough of them, which takes it to the other end where they are old. OFFSET 0 has it plan the inside by itself.
    kind = aliased(Case, query.offset(0).subquery()) if few else Case
    query = select(kind) if few else query
    query = query.order_by(kind.changed_at.desc(), kind.id.desc()).limit(wanted.limit + 1)
    rows = list(await session.scalars(query))
    following = None
    if len(rows) > wanted.limit:
        rows = rows[: wanted.limit]
        kept = {name: getattr(wanted, name) for name in (*exact, "q") if getattr(wanted, name) is not None}
        flags = {"proposals": wanted.proposals, "overdue": wanted.overdue}
        kept |= {name: str(flag).lower() for name, flag in flags.items() if flag is not None}
        cursor = _encode(rows[-1].changed_at, rows[-1].id)
        following = "/v1/cases?" + urlencode({**kept, "limit": wanted.limit, "cursor": cursor})
    return CaseList(cases=[_row(catalogue, case, paused.get(case.process)) for case in rows], next=following)


async def _paused(session: AsyncSession, catalogue: Catalogue) -> Mapping[str, datetime]:
    """The processes that are paused, and since when; within one snapshot that is asked once."""
    if not session.info.get("snapshot"):
        return await paused_processes(session, catalogue)
    if "paused" not in session.info:
        session.info["paused"] = await paused_processes(session, catalogue)
    return session.info["paused"]


async def list_conditions(
    session: AsyncSession, catalogue: Catalogue, *, rows: Sequence[CaseRow]
) -> dict[UUID, ConditionInfo]:
    """What is happening to each case of a list, in the words of its document: a few reads for all of them."""
    cases = list(await session.scalars(select(Case).where(Case.id.in_([row.case_id for row in rows]))))
    held = await _process_pauses(session, {case.process for case in cases})
    found: dict[UUID, ConditionInfo] = {}
    for work in await read_cases(session, catalogue, cases):
        now = work.situation()
        found[work.case.id] = condition_info(condition(replace(now, pauses=(*now.pauses, *held[work.process.name]))))
    return found


def _matches(q: str) -> Any:
    """A business key's beginning, or any id: of the case, of an operation, of an effect."""
    escaped = q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    conditions = [Case.business_key.like(escaped + "%")]
    head = q.split(":", maxsplit=1)[0]
    try:
        wanted = UUID(head)
    except ValueError:
        pass
    else:
        # Not `IN`: what a subquery that gives one value finds is looked up in an index.
        by_operation = select(Operation.case_id).where(Operation.id == wanted).scalar_subquery()
        conditions += [Case.id == wanted, Case.id == by_operation]
    return or_(*conditions)


def _row(catalogue: Catalogue, case: Case, paused_since: datetime | None) -> CaseRow:
    row = _own_row(catalogue, case)
    over = case.final and case.operation_id is None
    if paused_since is None or case.paused is not None or over:
        return row
    changes = {"condition": "paused", "condition_since": paused_since, "recovery_owner": OPERATOR, "waiting_on": None}
    return row.model_copy(update=changes)


def _own_row(catalogue: Catalogue, case: Case) -> CaseRow:
    return CaseRow(
        case_id=case.id,
        process=case.process,
        business_key=case.business_key,
        title=case.title,
        version=case.version,
        state=case.state,
        state_title=catalogue[case.process].state(case.state).title,
        condition=case.condition,
        condition_since=case.condition_since,
        recovery_owner=case.recovery_owner,
        waiting_on=case.waiting_on,
        assignee=case.assignee,
        deadline_at=case.deadline_at,
        proposals=case.proposals,
        opened_at=case.opened_at,
        changed_at=case.changed_at,
        href=f"/v1/cases/{case.id}",
    )


async def get_timeline(
    session: AsyncSession, catalogue: Catalogue, *, case_id: UUID, actor: Actor, after: int = 0, limit: int = MAX_PAGE
) -> Timeline:
    """The entries behind number `after`, in order. Raises CaseNotFound."""
    await visible_case(session, catalogue, case_id, actor)
    query = select(Entry).where(Entry.case_id == case_id, Entry.number > after).order_by(Entry.number)
    rows = list(await session.scalars(query.limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    following = f"/v1/cases/{case_id}/timeline?after={rows[-1].number}&limit={limit}" if more else None
    return Timeline(case_id=case_id, entries=[_entry(row) for row in rows], next=following)


async def latest_entries(
    session: AsyncSession,
    catalogue: Catalogue,
    *,
    case_id: UUID,
    actor: Actor,
    before: int | None = None,
    limit: int = MAX_PAGE,
) -> list[EntryDocument]:
    """The entries before number `before`, or the latest of all, the newest first. Raises CaseNotFound."""
    await visible_case(session, catalogue, case_id, actor)
    query = select(Entry).where(Entry.case_id == case_id).order_by(Entry.number.desc()).limit(limit)
    if before is not None:
        query = query.where(Entry.number < before)
    return [_entry(row) for row in await session.scalars(query)]


def _entry(row: Entry) -> EntryDocument:
    return EntryDocument(
        number=row.number,
        type=row.type,
        at=row.at,
        sentence=entry_sentence(row.type, row.data),
        actor=ActorDocument(
            id=row.actor_id, role=row.actor_role, via=row.actor_via, on_behalf_of=row.data.get("on_behalf_of")
        ),
        reason=row.reason,
        operation_id=row.operation_id,
        effect_key=row.effect_key,
        data=row.data,
        hash=row.hash.hex(),
    )


_SIGN = text(
    """
    SELECT concat_ws(' ', (SELECT max(changed_at) FROM cases), (SELECT sum(number) FROM pauses),
        (SELECT concat_ws(' ', count(*), max(id)) FROM outbox_messages WHERE parked),
        (SELECT concat_ws(' ', count(*), max(received_at)) FROM callbacks WHERE parked AND dismissed_at IS NULL),
        date_trunc('minute', clock_timestamp()))
    """
)


async def sign_of_work(session: AsyncSession) -> str:
    """What is another once a case, a pause, a parked message or callback is another: the ends of a few indexes.

    And once a minute, for what only the clock changes, and for a change that was committed after a later one.
    """
    return await session.scalar(_SIGN) or ""


async def parked_messages(session: AsyncSession, *, parked: bool, after: int = 0, limit: int = MAX_PAGE) -> MessageList:
    """A page of the outbox messages behind number `after` that were parked, or that still wait to be dispatched."""
    wanted = Message.parked if parked else and_(Message.dispatched_at.is_(None), ~Message.parked)
    query = select(Message).where(wanted, Message.id > after).order_by(Message.id)
    rows = list(await session.scalars(query.limit(limit + 1)))
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        following = f"/v1/outbox?parked={str(parked).lower()}&after={rows[-1].id}"
    return MessageList(messages=[message_document(row) for row in rows], next=following)


def message_document(row: Message) -> MessageDocument:
    """The row as a document."""
    return MessageDocument(
        message_id=row.id,
        destination=row.destination,
        case_id=row.case_id,
        operation_id=row.operation_id,
        parked=row.parked,
        tries=row.tries,
        error=row.error,
        created_at=row.created_at,
    )


async def visible_case(session: AsyncSession, catalogue: Catalogue, case_id: UUID, actor: Actor) -> Case:
    """The case, if this actor may see it. Raises CaseNotFound."""
    case = await session.get(Case, case_id)
    if case is None or not _visible(catalogue, case, actor):
        raise CaseNotFound
    return case


def _visible(catalogue: Catalogue, case: Case, actor: Actor) -> bool:
    return case.process in catalogue and catalogue[case.process].visible_to(actor.roles)


async def read_case(session: AsyncSession, catalogue: Catalogue, case: Case) -> LockedCase:
    """The case with its operation in flight, that one's effects and those it is to undo, for reading only."""
    return (await read_cases(session, catalogue, [case]))[0]


async def read_cases(session: AsyncSession, catalogue: Catalogue, cases: Sequence[Case]) -> list[LockedCase]:
    """Several in the same order, in two reads for all of them."""
    flying = [case.operation_id for case in cases if case.operation_id is not None]
    operations: dict[UUID, Operation] = {}
    effects: dict[UUID, dict[str, Effect]] = defaultdict(dict)
    if flying:
        operations = {row.id: row for row in await session.scalars(select(Operation).where(Operation.id.in_(flying)))}
        undoing = [row.case_id for row in operations.values() if undoes(catalogue[row.process], row)]
        wanted = Effect.driven_by.in_(flying)
        if undoing:
            wanted = or_(wanted, and_(Effect.case_id.in_(undoing), Effect.standing))
        for row in await session.scalars(select(Effect).where(wanted)):
            effects[row.case_id][row.key] = row
    return [
        LockedCase(
            session=session,
            process=catalogue[case.process],
            case=case,
            now=case.changed_at,
            operation=operations[case.operation_id] if case.operation_id else None,
            effects=effects[case.id],
        )
        for case in cases
    ]


def _encode(changed_at: datetime, case_id: UUID) -> str:
    return base64.urlsafe_b64encode(json.dumps([changed_at.isoformat(), str(case_id)]).encode()).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        changed_at, case_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        instant = datetime.fromisoformat(changed_at)
        return instant.astimezone(UTC), UUID(case_id)
    except (ValueError, OverflowError, TypeError, AttributeError, binascii.Error) as fault:
        message = "Not a cursor of this list."
        raise InputInvalid(message, errors=[{"field": "cursor", "message": message}]) from fault
