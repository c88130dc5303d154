"""Replay: do a business story again from one of its steps, by a plan that was shown before and is kept to.

A plan says for each step of the story whether its effect is reused, offset first, or made anew, and which decisions of
people survive: one does while the subject that it saw is the subject still, and the story leads where it led before.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select

from caseward.cases.attached import counting
from caseward.cases.locked import LockedCase, address_of, reused, story_of
from caseward.cases.operations import Request, begin, new_operation, resting, take_over
from caseward.db.tables import Effect, Operation
from caseward.documents.replay import PlannedDecision, PlannedStep, ReplayPlan
from caseward.errors import ActionNotAllowed, InputInvalid, Reason
from caseward.offsets import divide, irrevocable, is_offset, needs_offset, surely_nothing
from caseward.process import NONE_NEEDED, Step, Transition
from caseward.situation import FINISHED, UNDO_SUFFIX, step_title


@dataclass(frozen=True)
class _Told:
    """A story of this case that stands: the transition that began it, and the operation that tells it now."""

    root: Operation
    now: Operation
    story: Transition


@dataclass(frozen=True)
class Planned:
    """A plan, with the rows that it is about."""

    document: ReplayPlan
    target: _Told
    offsets: list[Effect]
    reuse: dict[str, Effect]
    later: list[dict[str, Any]]
    returns: bool
    """Decisions since then survive, so that the case comes back to the state in which it is."""


@dataclass(frozen=True)
class Past:
    """What a plan looks back on: the stories that stand, what was decided since, and all that they did."""

    told: list[_Told]
    transitions: list[Operation]
    """Completed ones, in order."""
    effects: dict[str, Effect]
    """By key, in the order in which they were reserved."""
    begun: dict[UUID, list[Effect]]
    """The same by the operation that began them: a case may have had thousands."""
    documents: list[str]
    """Ids of those that count now."""


async def plan_replay(work: LockedCase, step_name: str) -> Planned:
    """What a replay from this step would do now.

    Raises InputInvalid where the case has not come to such a step, ActionNotAllowed where what was done can't be
    offset, later work rests on it, or what was approved has changed.
    """
    return _plan(work, await _past(work), step_name)


async def why_no_replay(work: LockedCase) -> tuple[Reason, ...]:
    """Why there is no step from which the case could be replayed; empty where there is one."""
    past = await _past(work)
    reasons: dict[str, Reason] = {}
    for told in past.told:
        for step in told.story.steps:
            try:
                _plan(work, past, step.name)
            except InputInvalid:
                continue
            except ActionNotAllowed as refused:
                reasons |= {reason.code: reason for reason in refused.reasons}
            else:
                return ()
    nothing = Reason("nothing_to_replay", "No step of this case was done that could be done again.")
    return tuple(reasons.values()) or (nothing,)


def _plan(work: LockedCase, past: Past, step_name: str) -> Planned:
    told = [story for story in past.told if step_name in {step.name for step in story.story.steps}]
    if not told:
        message = f"No story of this case has come to the step {step_name}."
        raise InputInvalid(message, errors=[{"field": "step", "message": message}])
    target = max(told, key=lambda story: story.root.accepted_at)
    if work.operation is not None and target.now.id != work.case.operation_id:
        # Only what is in flight can be taken over; an earlier story's place is behind it.
        message = f"{target.story.title} is over, and other work is under way: that comes to its end first."
        raise ActionNotAllowed(
            [Reason("operation_in_flight", message)], state=work.case.state, version=work.case.version
        )
    of_story = _by_step(target, past)
    if step_name not in {effect.step for effect in of_story.values()}:
        message = f"The step {step_name} has not begun yet: there is nothing to do again."
        raise InputInvalid(message, errors=[{"field": "step", "message": message}])
    reuse, again = divide(target.story, step_name, of_story)
    later = _later(work, past, target)
    _check_undoable(past, work, of_story, again)
    _check_untangled(past, work, later, again)
    _check_approved(work, past, target)
    kept = {effect.key for effect in reuse.values()}
    if target.now.state in FINISHED:
        candidates = list(of_story.values())
    else:  # what it had to take back itself, too
        candidates = [past.effects[key] for key in target.now.offsets]
        candidates += [effect for effect in _of(past, target.now) if effect.direction == "do"]
    offsets = [effect for effect in {e.key: e for e in candidates}.values() if effect.key not in kept]
    lost = [each for each in later if not each["kept"]]
    offsets += [past.effects[key] for each in lost for key in each["effects"]]
    offsets = [e for e in offsets if needs_offset(work.process, e) and not is_offset(e, past.effects)]
    offsets.sort(key=lambda effect: (effect.reserved_at, effect.key), reverse=True)
    returns = bool(later) and not lost
    planned = [*_offsets(work, [e for e in offsets if not surely_nothing(e)]), *_steps(target, of_story, reuse)]
    document = ReplayPlan(
        case_id=work.case.id,
        version=work.case.version,
        fence=work.case.fence,
        operation_id=target.now.id,
        tells=target.story.name,
        title=target.story.title,
        from_step=step_name,
        subject_revision=work.case.subject_revision,
        steps=planned,
        decisions=[*_decisions(of_story, reuse, target), *(_decision(each) for each in later)],
        pending=target.story.pending or work.case.state,
        leads_to=[work.case.state] if returns else list(target.story.targets),
        plan_hash="",
    )
    return Planned(document.model_copy(update={"plan_hash": _hash(document)}), target, offsets, reuse, later, returns)


async def planned_as_shown(work: LockedCase, step_name: str, plan_hash: str) -> Planned:
    """The plan of this hash, as it still is. Raises ActionNotAllowed where the case has moved since it was shown."""
    message = "The case has moved since this plan was made: look at the plan as it is now."
    try:
        planned = await plan_replay(work, step_name)
    except InputInvalid:
        if step_name not in work.process.steps:
            raise
        reason = Reason("plan_stale", message)
        raise ActionNotAllowed([reason], state=work.case.state, version=work.case.version) from None
    if planned.document.plan_hash != plan_hash:
        raise ActionNotAllowed([Reason("plan_stale", message)], state=work.case.state, version=work.case.version)
    return planned


async def accept_replay(work: LockedCase, step_name: str, plan_hash: str, request: Request) -> Operation:
    """Accept to do exactly what the plan of this hash says. Raises ActionNotAllowed where the case has moved since."""
    planned = await planned_as_shown(work, step_name, plan_hash)
    target = planned.target
    for effect in (*planned.offsets, *planned.reuse.values()):
        work.effects.setdefault(effect.key, effect)
    voided = target.now if target.now.state not in FINISHED else None
    operation = new_operation(
        request,
        case_id=work.case.id,
        process=work.case.process,
        kind="override",
        name="replay",
        case_state=work.case.state,
        at=work.now,
        from_state=resting(work, voided) if planned.returns or voided else target.root.from_state,
        subject_revision=work.case.subject_revision,
    )
    if voided is not None:  # it may have had a revision of its own, which is the replay's now
        operation.subject_base, operation.subject_revision = voided.subject_base, voided.subject_revision
    elif not planned.returns:
        operation.subject_base = target.root.subject_base
    operation.acts_on = target.now.id
    before = target.now.plan or {}
    operation.plan = plan = {
        "tells": target.story.name,
        "root": str(target.root.id),
        "from_step": step_name,
        "plan_hash": plan_hash,
        "reuse": {name: effect.key for name, effect in planned.reuse.items()},
        "later": planned.later,
        "returns": planned.returns,
        "led_to": before["led_to"] if before.get("returns") else target.now.to_state,
        "steps": [step.model_dump(mode="json") for step in planned.document.steps],
        "decisions": [decision.model_dump(mode="json") for decision in planned.document.decisions],
    }
    operation.documents = list(target.now.documents)
    await take_over(work, operation, voided=voided, offsets=planned.offsets)
    operation.undoes = list(target.now.undoes)  # what the story took back before stays taken back
    for effect in planned.reuse.values():
        effect.driven_by = operation.id
    await begin(work, operation, pending=target.story.pending, work_to_do=True)
    work.entry(
        "operation.planned",
        operation=operation,
        actor=request.actor,
        role=request.role,
        action=target.story.title,
        step=next(step.title for step in target.story.steps if step.name == step_name),
        steps=plan["steps"],
        decisions=plan["decisions"],
    )
    return operation


async def _past(work: LockedCase) -> Past:
    """Two queries, whatever the plan; what the transaction has in hand is not read again."""
    rows = await work.session.scalars(
        select(Operation)
        .where(Operation.case_id == work.case.id, or_(Operation.kind == "transition", Operation.name == "replay"))
        .order_by(Operation.accepted_at, Operation.id)
    )
    operations = list(rows)
    told = _stories(work, operations)
    transitions = [row for row in operations if row.kind == "transition" and row.state == "completed"]
    wanted = {story.now.id for story in told} | {row.id for row in transitions}
    keys = {key for story in told for key in (*story.now.offsets, *reused(story.now))}
    found = await work.session.scalars(
        select(Effect)
        .where(or_(Effect.operation_id.in_(wanted), Effect.key.in_([*keys, *(key + UNDO_SUFFIX for key in keys)])))
        .order_by(Effect.reserved_at, Effect.key)  # the plan's hash depends on it
    )
    documents = [] if work.case.documents is None else [str(row.id) for row in await counting(work)]
    effects, begun = dict[str, Effect](), defaultdict[UUID, list[Effect]](list)
    for effect in found:
        effects[effect.key] = effect
        begun[effect.operation_id].append(effect)
    return Past(told, transitions, effects, begun, documents)


def _stories(work: LockedCase, operations: list[Operation]) -> list[_Told]:
    """Every story that stands, each with its latest telling, since the case last left a final state."""
    finals = {state.name for state in work.process.states if state.final}
    roots: dict[UUID, Operation] = {}
    told: dict[UUID, Operation] = {}
    for row in operations:
        root_id = UUID(row.plan["root"]) if row.plan else row.id
        roots.setdefault(root_id, row)
        if row.kind == "transition" and row.from_state in finals and row.state == "completed":
            told.clear()
        if row.state == "completed" or row.id == work.case.operation_id:
            told[root_id] = row
    stories: list[_Told] = []
    for root_id, row in told.items():
        story = story_of(work.process, row)
        if story is not None and story.steps:
            stories.append(_Told(roots[root_id], row, story))
    return stories


def _later(work: LockedCase, past: Past, target: _Told) -> list[dict[str, Any]]:
    """The transitions taken since the story was first told, and whether what they decided on is what it was."""
    if target.now.id == work.case.operation_id:
        return []
    tellings = {told.root.id: told.now for told in past.told}
    rows = [row for row in past.transitions if row.accepted_at > target.root.accepted_at]
    kept = all(row.subject_revision == work.case.subject_revision for row in rows)
    found: list[dict[str, Any]] = []
    for row in rows:
        transition = work.process.transition(row.name)
        done = [effect.key for effect in _of(past, tellings.get(row.id, row)) if effect.direction == "do"]
        found.append(
            {
                "operation_id": str(row.id),
                "name": row.name,
                "title": transition.title if transition else row.name,
                "actor": row.actor_id,
                "kept": kept,  # all or none: where one falls, the case comes to rest before the first of them
                "effects": done,
            }
        )
    return found


def _of(past: Past, operation: Operation) -> list[Effect]:
    """The effects of an operation's story, those that it adopted included."""
    begun = past.begun.get(operation.id, [])
    adopted = [past.effects[key] for key in reused(operation) if key in past.effects]
    found = {effect.key: effect for effect in (*begun, *adopted)}
    return sorted(found.values(), key=lambda effect: (effect.reserved_at, effect.key)) if adopted else begun


def _by_step(told: _Told, past: Past) -> dict[str, Effect]:
    names = {step.name for step in told.story.steps}
    return {address_of(e.step, e.item): e for e in _of(past, told.now) if e.direction == "do" and e.step in names}


def _check_undoable(past: Past, work: LockedCase, of_story: dict[str, Effect], again: Sequence[Step[Any]]) -> None:
    stuck = irrevocable(work.process, again, of_story, past.effects)
    if stuck:
        message = f"It can't be taken back, so it can't be done again: {', '.join(sorted(stuck))}."
        raise ActionNotAllowed([Reason("undo_impossible", message)], state=work.case.state, version=work.case.version)


def _check_untangled(past: Past, work: LockedCase, later: list[dict[str, Any]], again: Sequence[Step[Any]]) -> None:
    """Nothing that stands since may rest on what would be replaced."""
    replaced = [step for step in again if step.undo is not NONE_NEEDED]
    if not replaced:
        return
    resting_on = [
        each["title"] for each in later if each["kept"] and any(past.effects[key].standing for key in each["effects"])
    ]
    if resting_on:
        message = f"Later work rests on it: {', '.join(resting_on)}. Take that back first."
        raise ActionNotAllowed([Reason("replay_entangled", message)], state=work.case.state, version=work.case.version)


def _check_approved(work: LockedCase, past: Past, target: _Told) -> None:
    """An approval is good for what it saw; other data needs another one, not a replay of what the old one set off."""
    same = target.root.subject_revision == work.case.subject_revision and target.root.documents == past.documents
    changed = not same and target.now.id != work.case.operation_id
    if changed and (target.story.four_eyes or target.story.confirmation):
        message = f"{target.story.title}: what was decided on has changed since, so it has to be decided again."
        raise ActionNotAllowed([Reason("approval_void", message)], state=work.case.state, version=work.case.version)


def _offsets(work: LockedCase, offsets: list[Effect]) -> Iterator[PlannedStep]:
    for effect in offsets:
        step = work.process.steps.get(effect.step)
        yield PlannedStep(
            step=effect.step + UNDO_SUFFIX,
            item=effect.item,
            title=step_title(step, "undo") if step else effect.step,
            action="offset",
            effect=effect.key,
            unknown=effect.outcome == "unknown" or effect.state != "settled",
        )


def _steps(target: _Told, of_story: dict[str, Effect], reuse: dict[str, Effect]) -> Iterator[PlannedStep]:
    for step in target.story.steps:
        done = {name: effect for name, effect in of_story.items() if effect.step == step.name}
        for name, before in (done or {step.name: None}).items():
            item = before.item if before is not None else None
            if name in reuse:
                effect = reuse[name].key
                yield PlannedStep(step=step.name, item=item, title=step.title, action="reuse", effect=effect)
                continue
            # Without a compensation what was done stays done beside the new one, and people should know before.
            stays = before is not None and step.undo is NONE_NEEDED and (before.standing or before.outcome == "unknown")
            yield PlannedStep(
                step=step.name,
                item=item,
                title=step.title,
                action="run",
                stays=before.key if before is not None and stays else None,
                unknown=bool(stays and before is not None and not before.standing),
            )


def _decisions(of_story: dict[str, Effect], reuse: dict[str, Effect], target: _Told) -> Iterator[PlannedDecision]:
    titles = {step.name: step.title for step in target.story.steps}
    for name, effect in of_story.items():
        if effect.decision in {"skipped", "marked_done"}:
            yield PlannedDecision(
                kind="override",
                name=effect.decision,
                title=titles[effect.step],
                step=effect.step,
                kept=name in reuse,
            )
    yield PlannedDecision(
        kind="transition",
        name=target.root.name,
        title=target.story.title,
        operation_id=target.root.id,
        actor=target.root.actor_id,
        kept=True,
    )


def _decision(later: dict[str, Any]) -> PlannedDecision:
    return PlannedDecision(
        kind="transition",
        name=later["name"],
        title=later["title"],
        operation_id=UUID(later["operation_id"]),
        actor=later["actor"],
        kept=later["kept"],
    )


def _hash(document: ReplayPlan) -> str:
    """Over all that the plan says, but for the version: a case's version also rises where no plan would change."""
    content = document.model_dump(mode="json", exclude={"plan_hash", "version"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
