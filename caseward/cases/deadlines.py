"""Deadlines of states: what follows when one passes, as the process declares it. It acts as `system`, once a visit."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.locked import LockedCase, lock_case
from caseward.cases.looking_back import whole_situation
from caseward.cases.operations import Request, accept_transition, accept_undo
from caseward.cases.pauses import deadline_frozen
from caseward.db.tables import Operation
from caseward.entries import sentence
from caseward.messages import DeadlineCall, News
from caseward.policy import undo_target
from caseward.process import Block, Catalogue, Escalate, State, Take, Unwind
from caseward.situation import SYSTEM

# A timer that fires a moment early by another clock must not spin.
EARLY = timedelta(milliseconds=5)


async def pass_deadline(session: AsyncSession, catalogue: Catalogue, call: DeadlineCall) -> News:
    """Act on a state's deadline, if the case is still in the very visit and the instant has come.

    Whoever commits first wins: a case that has left the visit, or that is being taken back, is left alone.
    """
    work = await lock_case(session, catalogue, UUID(call.case_id))
    case = work.case
    due = case.deadline_at is not None and work.now + EARLY >= case.deadline_at
    if case.visit != call.visit or not due or not work.deadline_acts():
        return work.news()
    if await deadline_frozen(work):
        work.touch()  # a new version, so that the workflow heeds this: no timer until the resume tells it
        return replace(work.news(), deadline_at=None)
    state = work.process.state(case.state)
    case.deadline_at = None  # it passes once, whatever follows
    if state.deadline is None:  # no longer declared
        work.touch()
        return work.news()
    work.entry("deadline.passed", state=state.title)
    match state.deadline.then:
        case Escalate(role):
            case.escalated_to, title = role, work.process.role_title(role)
            work.entry("case.escalated", role=title)
            work.mail("case_escalated", role, sentence("case.escalated", {"role": title}))
            work.touch()
        case Take(name):
            transition = work.process.transition(name)
            if transition is None:
                message = f"{case.process}: the deadline takes the unknown transition {name}"
                raise AssertionError(message)  # refused when the declaration was loaded
            await whole_situation(work)  # what it took before
            await accept_transition(work, transition, Request(actor=SYSTEM, role=None, reason="The deadline passed."))
        case Unwind():
            await _unwind(work, state)
        case Block(owner):
            _block(work, state, owner or work.process.owner)
    return work.news()


async def _unwind(work: LockedCase, state: State) -> None:
    """Take back the operation in flight, or the latest; where that can't be, somebody has to decide."""
    now = await whole_situation(work)
    target = undo_target(now)
    if target is None or not target.undoable:
        _block(work, state, work.process.owner)
        return
    operation = work.operation or await work.session.get_one(Operation, target.id)
    reason = f"The deadline of {state.title} passed, and the process declares that it is undone then."
    await accept_undo(work, operation, Request(actor=SYSTEM, role=None, reason=reason))


def _block(work: LockedCase, state: State, owner: str) -> None:
    """Have the owner decide. What is under way goes on: to stop it is what `UNDO` and `Take` are declared for."""
    work.case.overdue = {"since": work.now.isoformat(), "recovery_owner": owner}
    work.entry("case.overdue", state=state.title, recovery_owner=owner)
    words = sentence("case.overdue", {"state": state.title, "recovery_owner": owner})
    work.mail("case_blocked", owner, words)
    work.touch()
