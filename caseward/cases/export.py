"""A case as an evidence file: written page by page, so that its length doesn't matter, and the timeline last.

No transaction stays open while somebody slow receives it. The pages can't contradict each other all the same: entries
are never changed, and the timeline, read last, tells of everything that stands above it.
"""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import select

from caseward.cases.queries import operation_documents, snapshot, visible_case
from caseward.cases.timeline import canonical_text
from caseward.db.session import Database, database_now
from caseward.db.tables import Case, Entry, Operation, Subject
from caseward.evidence import FORMAT, FORMAT_VERSION, GENESIS, RULE
from caseward.process import Catalogue
from caseward.situation import Actor

OPERATIONS_A_PAGE, ENTRIES_A_PAGE = 100, 500
_FACTS = (
    *("process", "business_key", "title", "state", "state_since", "condition", "version", "fence"),
    *("subject_revision", "opened_at", "changed_at"),
)


def file_name(case_id: UUID) -> str:
    """What the file is called where it is saved."""
    return f"caseward-evidence-{case_id}.json"


async def evidence(database: Database, catalogue: Catalogue, *, case_id: UUID, actor: Actor) -> AsyncIterator[str]:
    """The file in parts. Raises CaseNotFound before the first one."""
    async with database.transaction() as session:
        await snapshot(session)
        case = await visible_case(session, catalogue, case_id, actor)
        facts = {"case_id": str(case.id), **{name: getattr(case, name) for name in _FACTS}}
        now = await database_now(session)
        revisions = await session.execute(
            select(Subject.revision, Subject.data).where(Subject.case_id == case_id).order_by(Subject.revision)
        )
        subjects = [{"revision": revision, "data": data} for revision, data in revisions]
    return _parts(database, catalogue, case_id, _begin(facts, subjects, now, actor))


def _begin(facts: dict[str, Any], subjects: list[dict[str, Any]], now: datetime, actor: Actor) -> str:
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "exported_at": now,
        "exported_by": actor.id,
        "case": facts,
        "subjects": subjects,
    }
    return to_json(head).decode().removesuffix("}")


async def _parts(database: Database, catalogue: Catalogue, case_id: UUID, begin: str) -> AsyncIterator[str]:
    yield begin + ',"operations":['
    separator = ""
    async for page in _operations(database, catalogue, case_id):
        yield separator + ",".join(page)
        separator = ","
    async with database.transaction() as session:
        row = await session.execute(select(Case.timeline_number, Case.timeline_head).where(Case.id == case_id))
        length, head = row.one()
    yield '],"timeline":['
    separator = ""
    async for page in _entries(database, case_id, length):
        yield separator + ",".join(page)
        separator = ","
    chain = {"rule": RULE, "genesis": GENESIS.hex(), "entries": length, "head": head.hex()}
    yield f'],"chain":{json.dumps(chain)}}}'


async def _operations(database: Database, catalogue: Catalogue, case_id: UUID) -> AsyncIterator[list[str]]:
    after = UUID(int=0)
    while True:
        async with database.transaction() as session:
            await snapshot(session)
            page = list(
                await session.scalars(
                    select(Operation)
                    .where(Operation.case_id == case_id, Operation.id > after)
                    .order_by(Operation.id)
                    .limit(OPERATIONS_A_PAGE)
                )
            )
            if not page:
                return
            after = page[-1].id
            documents = await operation_documents(session, catalogue[page[0].process], page)
        yield [document.model_dump_json() for document in documents]


async def _entries(database: Database, case_id: UUID, length: int) -> AsyncIterator[list[str]]:
    """Every entry that was there when the head was read, and whatever somebody put behind the end."""
    after = -(2**31)
    while True:
        async with database.transaction() as session:
            page = list(
                await session.scalars(
                    select(Entry)
                    .where(Entry.case_id == case_id, Entry.number > after)
                    .order_by(Entry.number)
                    .limit(ENTRIES_A_PAGE)
                )
            )
            # What the case wrote since belongs to the next export; what it never counted is shown.
            counted = await session.scalar(select(Case.timeline_number).where(Case.id == case_id)) or 0
            told = [_entry(row) for row in page if row.number <= length or row.number > counted]
        if told:
            yield told
        if len(page) < ENTRIES_A_PAGE:
            return
        after = page[-1].number


def _entry(row: Entry) -> str:
    entry = {"number": row.number, "hash": row.hash.hex(), "canonical": canonical_text(row)}
    return json.dumps(entry, ensure_ascii=False)
