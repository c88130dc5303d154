"""Taking back, in the course of a story, what earlier operations left standing.

The effects join those that the operation has to offset, in one transaction; from there on they are offset like those of
an operation that was superseded: by the same keys, for the same owners, whoever dies meanwhile.
"""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.locked import lock_case
from caseward.cases.operations import action_title, drive, know_compensations, know_given_up
from caseward.db.tables import Operation
from caseward.messages import TakeBackAnswer, TakeBackCall
from caseward.offsets import is_offset
from caseward.process import Catalogue
from caseward.situation import effect_title


async def take_back(session: AsyncSession, catalogue: Catalogue, call: TakeBackCall) -> TakeBackAnswer:
    """Have the operation in flight offset what stands of these steps; told again, it answers what is left of that."""
    work = await lock_case(session, catalogue, UUID(call.case_id))
    operation = await session.get_one(Operation, UUID(call.operation_id))
    if work.case.fence != call.fence or work.case.operation_id != operation.id:
        return TakeBackAnswer("superseded", work.case.version, news=work.news())
    await know_given_up(work)
    found = [effect for effect in work.left_standing(operation) if effect.step in call.steps]
    await know_compensations(work, found)
    # What was given up while nobody knew stands nowhere, and may have happened all the same: that comes out first.
    found = [effect for effect in found if effect.decision == "given_up" or not is_offset(effect, work.effects)]
    if found:
        await drive(work, operation, found)
        operation.undoes = [*operation.undoes, *(effect.key for effect in found)]
        if operation.state == "accepted":
            operation.state, operation.started_at = "running", work.now
        titles = ", ".join(effect_title(work.process, effect.step, "do") for effect in found)
        work.entry("operation.takes_back", operation=operation, action=action_title(work, operation), titles=titles)
        work.touch()
    outstanding = [offset for offset in work.outstanding_offsets(operation) if offset.step in call.steps]
    return TakeBackAnswer("offsets", work.case.version, outstanding, news=work.news())
