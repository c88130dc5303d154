"""Looking back: the situation with all that the policy needs to know of what was before, for commands and for reads."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import pauses
from caseward.cases.locked import LockedCase, operation_view
from caseward.cases.proposals import proposals_of
from caseward.cases.replay import why_no_replay
from caseward.db.tables import Case, Effect, Operation, Subject
from caseward.overrides import OVERRIDES
from caseward.policy import begins_impossible
from caseward.process import Process
from caseward.situation import CASE, Actor, OperationView, Situation

# Made once, because making it takes longer than running it.
_LATEST = (
    select(Operation, func.array_agg(Effect.step))
    .outerjoin(Effect, Effect.operation_id == Operation.id)
    .where(Operation.id == any_(bindparam("operation_ids", type_=ARRAY(Uuid))))
    .group_by(Operation.id)
)


async def whole_situation(work: LockedCase, actor: Actor | None = None) -> Situation:
    """The situation with all that the policy looks back on; what a replay looks back on only for who might want one."""
    return (await whole_situations([work], actor))[work.case.id]


async def whole_situations(works: Sequence[LockedCase], actor: Actor | None = None) -> dict[UUID, Situation]:
    """By case: the same of several, all read in one transaction."""
    found = await look_back(works)
    wants = actor is not None and actor.roles & OVERRIDES["replay"].roles
    for work in works:
        now = found[work.case.id]
        work.taken = frozenset(now.acted)
        if not work.case.final and (wants or any(proposal.name == "replay" for proposal in now.proposals)):
            found[work.case.id] = replace(now, no_replay=await why_no_replay(work))
    return found


async def look_back(works: Sequence[LockedCase]) -> dict[UUID, Situation]:
    """By case: who acted before, which pauses concern it, which operation an undo would take back, and proposals."""
    if not works:
        return {}
    session, cases = works[0].session, [work.case for work in works]
    wanted = {
        "case_ids": [case.id for case in cases],
        "operation_ids": [case.operation_id for case in cases],
        "processes": [pauses.process_key(case.process) for case in cases],
    }
    looked = {row.case_id: row for row in await session.execute(pauses.LOOK_BACK, wanted)}
    latest = await _latest([work for work in works if work.operation is None and work.case.latest_id is not None])
    proposed = await proposals_of(session, cases)
    found: dict[UUID, Situation] = {}
    for work in works:
        case, now = work.case, work.situation()
        acted: dict[str, list[str]] = looked[case.id].acted or {}
        own = tuple(pause for pause in now.pauses if pause.key == CASE)
        found[case.id] = replace(
            now,
            acted={each.name: frozenset(acted[each.name]) for each in now.process.transitions if each.name in acted},
            latest=latest.get(case.id),
            pauses=own + pauses.views_of(looked[case.id].held, case),
            proposals=proposed.get(case.id, ()),
            subject=await _asked_for(session, now.process, case),
        )
    return found


async def _latest(works: Sequence[LockedCase]) -> dict[UUID, OperationView]:
    """By case: the operation that an undo would take back; it stays in the case's `latest`, too."""
    if not works:
        return {}
    of_case = {work.case.id: work for work in works}
    asked = {"operation_ids": [work.case.latest_id for work in works]}
    found: dict[UUID, OperationView] = {}
    for row, steps in await works[0].session.execute(_LATEST, asked):
        work = of_case[row.case_id]
        work.latest = row
        found[row.case_id] = operation_view(row, impossible_begun=begins_impossible(work.process, steps))
    return found


async def _asked_for(session: AsyncSession, process: Process, case: Case) -> BaseModel | None:
    """The case's subject, where a rule looks at it and it can be read."""
    if not any(each.confirmation and each.confirmation.when for each in process.transitions):
        return None
    row = await session.get_one(Subject, (case.id, case.subject_revision))
    try:
        return process.subject.model_validate(row.data)
    except ValidationError:
        return None
