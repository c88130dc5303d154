"""What an action would do, in words, before anybody confirms it: from the declaration and the engine's own list."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases.queries import get_offsets
from caseward.claims import CLAIM_WORDS
from caseward.documents.case import ActionDocument, CaseDocument
from caseward.documents.proposal import ProposedAction
from caseward.documents.replay import PlannedStep
from caseward.overrides import OVERRIDES
from caseward.policy import override_confirmation, role_names
from caseward.process import Catalogue, Confirmation, Process, Transition
from caseward.situation import UNDO_SUFFIX, Actor

TAKES_BACK = frozenset({"undo", "force_cancel"})
GOES_ON = frozenset({"retry", "skip", "mark_done"})
FOLLOWS = {
    "retry": "The next attempt begins now, under the same effect key: what the partner did is not done twice.",
    "skip": "The step is left out, and the operation goes on without it.",
    "mark_done": "The step counts as done by hand, with the result that you give, and the operation goes on.",
    "undo": "What was done is taken back, the latest first, and the case returns to the state before.",
    "replay": "It is done again from a step that you choose: exactly by the plan, or not at all if the case has moved.",
    "force_cancel": "Everything stops, and what was done is taken back.",
    "pause": "Nothing new begins in this case until somebody resumes it; what is at a partner comes to its end.",
    "resume": "The case's own pause ends, and it goes on.",
}


@dataclass(frozen=True)
class Consequences:
    """What would follow."""

    lines: tuple[str, ...]
    runs: tuple[tuple[str, str], ...] = ()
    """Steps that would run, each with its partner; of an override, those that are left once it has helped."""
    offsets: tuple[PlannedStep, ...] = ()
    """What would be taken back, the latest first."""
    confirming: str | None = None
    """Who would have to confirm it; None where nobody does."""


async def consequences(
    session: AsyncSession,
    catalogue: Catalogue,
    process: Process,
    case: CaseDocument,
    action: ActionDocument | ProposedAction,
    actor: Actor,
) -> Consequences:
    """Of this action on this case, if it were accepted now."""
    if action.kind == "claim":
        return Consequences((CLAIM_WORDS[action.name],))
    if action.kind == "transition":
        return _of_transition(process, action)
    override = OVERRIDES[action.name]
    lines = [FOLLOWS.get(override.name, override.title)]
    if override.takes_over:
        lines.append("It takes the case over: nothing of what is under way begins from then on.")
    offsets: tuple[PlannedStep, ...] = ()
    if action.name in TAKES_BACK:
        found = await get_offsets(session, catalogue, case_id=case.case_id, override=action.name, actor=actor)
        offsets = tuple(found)
    if action.name == "force_cancel":
        forced = process.force_cancel
        pending, end = process.state(forced.pending).title, process.state(forced.to).title
        lines.append(f"The case goes through {pending} to {end}, and is closed.")
    runs: tuple[tuple[str, str], ...] = ()
    if action.name in GOES_ON and case.operation:
        runs = tuple((step.title, step.partner) for step in case.operation.steps if step.state == "pending")
    step = process.steps.get((action.step or "").removesuffix(UNDO_SUFFIX))
    confirmation = override_confirmation(process, override, step)
    return Consequences(tuple(lines), runs=runs, offsets=offsets, confirming=_confirming(process, confirmation, action))


def _of_transition(process: Process, action: ActionDocument | ProposedAction) -> Consequences:
    transition = process.transition(action.name)
    if transition is None:
        return Consequences(())
    runs = tuple((step.title, step.partner) for step in transition.steps)
    confirming = _confirming(process, transition.confirmation, action)
    return Consequences(tuple(_transition_lines(process, transition)), runs=runs, confirming=confirming)


def _transition_lines(process: Process, transition: Transition) -> Iterator[str]:
    targets = " or ".join(process.state(name).title for name in transition.targets)
    if transition.pending:
        pending = process.state(transition.pending)
        yield f"The case is {pending.title} until all of it is done; then it is {targets}."
    else:
        yield f"The case is {targets} at once."
    if transition.undoes:
        yield f"It takes back what earlier work left standing of: {', '.join(s.title for s in transition.undoes)}."
    if transition.source & process.pending_states:
        yield "Where work is under way in the case, it supersedes that: what was done of it is settled and taken back."


def _confirming(
    process: Process, confirmation: Confirmation | None, action: ActionDocument | ProposedAction
) -> str | None:
    """In words; how many there must be beside this actor, the server has counted. What is proposed says so itself."""
    if isinstance(action, ProposedAction) or not action.confirmations:
        return None
    people = "one more person has" if action.confirmations == 1 else f"{action.confirmations} more people have"
    who = f" ({role_names(process, confirmation.roles)})" if confirmation else ""
    return f"It is only proposed: nothing happens before {people} confirmed it{who}."
