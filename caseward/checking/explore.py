"""What only shows when cases are walked through a process: `policy.decide` itself judges each state and step."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from caseward.policy import Action, decide
from caseward.process import (
    ENGINE_ROLES,
    IMPOSSIBLE,
    OPERATOR,
    SENIOR_OPERATOR,
    Escalate,
    Process,
    Step,
    Transition,
    Unwind,
)
from caseward.situation import Actor, EffectView, OperationView, Situation

NOWHEN, NOBODY = datetime(2000, 1, 1, tzinfo=UTC), UUID(int=0)


def dead_ends(process: Process) -> list[str]:
    """Every place where a case or its recovery would get stuck: where, and why. The fast faults are found before."""
    rules = (_stuck_states, _stuck_steps, _undo_paths, _idle_roles)
    return [f"{process.name}: {fault}" for rule in rules for fault in rule(process)]


def _at(process: Process, state: str) -> Situation:
    return Situation(
        process=process,
        case_id=NOBODY,
        state=state,
        state_since=NOWHEN,
        deadline_at=None,
        escalated_to=None,
        version=1,
    )


def _people(process: Process) -> list[Actor]:
    """One of each role, nobody having acted before: rules for different people are for different people to meet."""
    return [Actor(name, frozenset({name})) for name in sorted(ENGINE_ROLES | {role.name for role in process.roles})]


def _stuck_states(process: Process) -> Iterator[str]:
    people = _people(process)
    for state in process.states:
        if state.final or state.name in process.pending_states:
            continue
        now = _at(process, state.name)
        moves = [
            transition
            for transition in process.transitions
            if any(decide(now, actor, Action("transition", transition.name)).allowed for actor in people)
        ]
        if not any(set(transition.targets) - {state.name} for transition in moves):
            yield f"state {state.name}: no transition that anybody may take leads out of it"
        if state.waiting_on and not any(
            decide(now, actor, Action("transition", each.name)).allowed
            for actor in people
            if state.waiting_on in actor.roles
            for each in moves
        ):
            yield f"state {state.name}: waits on {state.waiting_on}, who may take no transition here"
        if (
            state.deadline
            and isinstance(state.deadline.then, Escalate)
            and not any(state.deadline.then.role in transition.roles for transition in moves)
        ):
            yield f"state {state.name}: escalates to {state.deadline.then.role}, who may take no transition here"


def _stuck_steps(process: Process) -> Iterator[str]:
    """Each step blocked in each outcome and direction: its owner is somebody, and some override goes on from there."""
    people = _people(process)
    for transition, step in ((each, step) for each in process.transitions for step in each.steps):
        for blocked in _blocked(process, transition, step):
            actions = [Action("override", name, blocked.effects[0].address) for name in ("skip", "mark_done")]
            ways = [*actions, Action("override", "undo"), Action("override", "force_cancel")]
            if not any(decide(blocked, actor, way).allowed for actor in people for way in ways):
                effect = blocked.effects[0]
                yield f"step {effect.address} of {transition.name}: once {effect.outcome}, nobody can go on"


def _blocked(process: Process, transition: Transition, step: Step[Any]) -> Iterator[Situation]:
    if transition.pending is None:
        return
    operation = OperationView(
        id=NOBODY,
        kind="transition",
        name=transition.name,
        state="running",
        tells=transition.name,
        accepted_at=NOWHEN,
        blocked=None,
        impossible_begun=any(each.undo is IMPOSSIBLE for each in transition.steps),
    )
    now = replace(_at(process, transition.pending), operation=operation)
    effect = EffectView(
        key="", operation_id=NOBODY, step=step.name, item=None, direction="do", partner=step.partner,
        recovery_owner=process.owner_of(step), state="blocked", outcome="failed", decision=None, cause="exhausted",
        error=None, result=None, attempt_count=1, next_attempt_at=None, answer_by=None, since=NOWHEN, offset=False,
        ruled_out=False,
    )  # fmt: skip
    for outcome in ("failed", "unknown", "acknowledged"):
        yield replace(now, effects=(replace(effect, outcome=outcome),))
        if step.compensable:
            undoing = replace(effect, outcome=outcome, direction="undo")
            yield replace(now, operation=replace(operation, state="undoing"), effects=(undoing,))


def _undo_paths(process: Process) -> Iterator[str]:
    for transition in process.transitions:
        for_good = [step.name for step in transition.steps if step.undo is IMPOSSIBLE]
        deadline = process.state(transition.pending).deadline if transition.pending else None
        for name in for_good:
            if deadline and isinstance(deadline.then, Unwind):
                yield f"state {transition.pending}: its deadline undoes {transition.name}, but step {name} is for good"
            for step in transition.steps:
                if step.exhausted == "undo" and step.name != name:
                    yield f"step {step.name}: exhausted means undo, but {name} of {transition.name} can't be undone"


def _idle_roles(process: Process) -> Iterator[str]:
    confirmations = [
        *(transition.confirmation for transition in process.transitions),
        *(step.skip_confirmation for step in process.steps.values()),
        *process.confirmations.values(),
    ]
    used = {role for transition in process.transitions for role in transition.roles}
    used |= {role for step in process.steps.values() for role in step.skip_roles}
    used |= {role for each in confirmations if each for role in each.roles} | {OPERATOR, SENIOR_OPERATOR}
    for role in process.roles:
        if role.name not in used:
            yield f"role {role.name}: nothing here takes it"
