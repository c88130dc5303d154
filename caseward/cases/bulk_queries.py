"""Bulk runs for reading: the runs, one with its counts, and its cases page by page."""

from collections import Counter, defaultdict
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy import any_, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.bulk import ITEM_STATES, UNDER_WAY, ItemState, RunState
from caseward.cases.queries import snapshot
from caseward.db.tables import BulkItem, BulkRun, Case
from caseward.documents.bulk import (
    BulkChosen,
    BulkDocument,
    BulkItemDocument,
    BulkItemList,
    BulkList,
    BulkNote,
)
from caseward.documents.parts import ActorDocument
from caseward.errors import BulkNotFound

RUNS_A_PAGE = 50


async def get_bulk(session: AsyncSession, *, bulk_id: UUID) -> BulkDocument:
    """The run as it stands. Raises BulkNotFound."""
    await snapshot(session)
    run = await session.get(BulkRun, bulk_id)
    if run is None:
        raise BulkNotFound
    return _document(run, (await _counts(session, [run.id]))[run.id])


async def list_bulk(
    session: AsyncSession,
    *,
    state: RunState | None,
    before: UUID | None,
    process: str | None = None,
    limit: int = RUNS_A_PAGE,
) -> BulkList:
    """A page of the runs, the newest first; ids rise with time. With `process` those over cases of it."""
    await snapshot(session)
    query = select(BulkRun).order_by(BulkRun.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(BulkRun.state == state)
    if process is not None:
        named = literal(process) == any_(BulkRun.named_of)
        query = query.where(or_(BulkRun.wanted["process"].astext == process, named))
    if before is not None:
        query = query.where(BulkRun.id < before)
    runs = list(await session.scalars(query))
    following = None
    if len(runs) > limit:
        runs = runs[:limit]
        kept = {name: value for name, value in (("state", state), ("process", process)) if value}
        following = "/v1/bulk?" + urlencode({**kept, "before": str(runs[-1].id), "limit": limit})
    counts = await _counts(session, [run.id for run in runs])
    return BulkList(runs=[_document(run, counts[run.id]) for run in runs], next=following)


async def list_items(
    session: AsyncSession, *, bulk_id: UUID, state: ItemState | None, after: int, limit: int
) -> BulkItemList:
    """The cases of a run behind number `after`, in their order. Raises BulkNotFound."""
    await snapshot(session)
    if await session.get(BulkRun, bulk_id) is None:
        raise BulkNotFound
    query = (
        select(BulkItem, Case.business_key, Case.title)
        .join(Case, Case.id == BulkItem.case_id)
        .where(BulkItem.bulk_id == bulk_id, BulkItem.number > after)
        .order_by(BulkItem.number)
        .limit(limit + 1)
    )
    if state is not None:
        query = query.where(BulkItem.state == state)
    rows = (await session.execute(query)).all()
    following = None
    if len(rows) > limit:
        rows = rows[:limit]
        kept = {"state": state} if state else {}
        following = f"/v1/bulk/{bulk_id}/items?" + urlencode({**kept, "after": rows[-1][0].number, "limit": limit})
    return BulkItemList(items=[_item(*row) for row in rows], next=following)


async def _counts(session: AsyncSession, bulk_ids: list[UUID]) -> dict[UUID, Counter[str]]:
    rows = await session.execute(
        select(BulkItem.bulk_id, BulkItem.state, func.count())
        .where(BulkItem.bulk_id.in_(bulk_ids))
        .group_by(BulkItem.bulk_id, BulkItem.state)
    )
    found: dict[UUID, Counter[str]] = defaultdict(Counter)
    for bulk_id, state, number in rows:
        found[bulk_id][state] = number
    return found


def _document(run: BulkRun, counts: Counter[str]) -> BulkDocument:
    group = None if run.wanted is None else {name: run.wanted[name] for name in run.wanted if name != "chosen"}
    return BulkDocument(
        bulk_id=run.id,
        state=run.state,
        sentence=_sentence(run, counts),
        override=run.override,
        reason=run.reason,
        input=run.input,
        actor=ActorDocument(id=run.actor_id, role=None, via="api"),
        group=group,
        chosen=_chosen(run),
        partners=run.partners,
        canary=run.canary,
        rate=run.rate,
        stop_after=run.stop_after,
        look=run.look,
        total=counts.total(),
        counts={state: counts[state] for state in ITEM_STATES},
        stopped_because=run.stopped_because,
        account=[BulkNote.model_validate(note) for note in run.account],
        items=f"/v1/bulk/{run.id}/items",
        created_at=run.created_at,
        changed_at=run.changed_at,
        finished_at=run.finished_at,
    )


def _chosen(run: BulkRun) -> BulkChosen | None:
    if run.wanted is None or "chosen" not in run.wanted:
        return None
    cases, gone = run.wanted["chosen"]["cases"], run.wanted["chosen"]["gone"]
    sentence = f"Only {cases} chosen {'case' if cases == 1 else 'cases'} of the group."
    if gone:
        sentence += f" {gone} of them {'was' if gone == 1 else 'were'} no longer blocked as seen then, and left out."
    return BulkChosen(cases=cases, gone=gone, sentence=sentence)


def _sentence(run: BulkRun, counts: Counter[str]) -> str:
    under_way = sum(counts[state] for state in UNDER_WAY)
    first = "The first one is" if run.canary == 1 else f"The first {run.canary} are"
    said = {
        "canary": f"{first} tried.",
        "looking": f"{first} over. An operator looks and says whether to go on.",
        "ramping": f"{counts['frozen']} of {counts.total()} still have to begin, at most {run.rate} a second.",
        "stopped": f"Stopped: {run.stopped_because}",
        "completed": f"Completed: {counts['repaired']} of {counts.total()} are repaired.",
    }[run.state]
    return f"{said} {under_way} {'is' if under_way == 1 else 'are'} under way." if under_way else said


def _item(row: BulkItem, business_key: str, title: str) -> BulkItemDocument:
    return BulkItemDocument(
        number=row.number,
        case_id=row.case_id,
        business_key=business_key,
        title=title,
        step=row.step,
        item=row.item,
        effect_key=row.effect_key,
        state=row.state,
        operation_id=row.operation_id,
        outcome=row.outcome,
        begun_at=row.begun_at,
        changed_at=row.changed_at,
    )
