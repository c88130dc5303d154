"""The faults of a declaration that can be seen at a glance: whoever loads a catalogue is told of each.

What only shows when a case is walked through its process is found by `caseward.checking`.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

from pydantic import BaseModel

from caseward.process import (
    CLAIMS,
    CONFIRMABLE,
    ENGINE_ROLES,
    ENGINEERING,
    IMPOSSIBLE,
    LONGEST_PROPOSAL,
    NAME,
    NONE_NEEDED,
    RESERVED_PROCESSES,
    RESERVED_TRANSITIONS,
    Block,
    Deadline,
    Escalate,
    Nothing,
    Process,
    State,
    Step,
    Take,
    Transition,
    Unwind,
)

HASH = "^[0-9a-f]{64}$"  # a SHA-256, as contents are named


def faults(process: Process) -> list[str]:
    """What is wrong with a declaration: each fault says where and what. An empty list is a sound process."""
    found = [f"{process.name}: {fault}" for fault in _name_faults(process)]
    if not found:  # the rest looks names up
        found = [
            f"{process.name}: {fault}"
            for check in (
                _transition_faults,
                _step_faults,
                _state_faults,
                _confirmation_faults,
                _document_faults,
                _reachability_faults,
            )
            for fault in check(process)
        ]
    return found


def _name_faults(process: Process) -> Iterator[str]:
    kinds: dict[str, list[str]] = {
        "state": [state.name for state in process.states],
        "transition": [transition.name for transition in process.transitions],
        "role": [role.name for role in process.roles],
    }
    for kind, names in kinds.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{kind} {name} is declared twice"
            if not NAME.fullmatch(name):
                yield f"{kind} {name!r}: names are lower case words joined by _"
    if not NAME.fullmatch(process.name):
        yield "a process name is lower case words joined by _"
    if process.name in RESERVED_PROCESSES:
        yield "the name stands for the API's own addresses"
    for name in sorted(set(kinds["role"]) & ENGINE_ROLES):
        yield f"role {name} is the engine's own"
    for name in sorted(set(kinds["transition"]) & RESERVED_TRANSITIONS):
        yield f"transition {name} has the name of an override"
    for name in sorted(set(kinds["transition"]) & CLAIMS):
        yield f"transition {name} has the name of what State(claimable_by=...) declares"
    known = set(kinds["state"])
    for where, name in _state_mentions(process):
        if name not in known:
            yield f"{where} names the unknown state {name}"
    openings = [transition.name for transition in process.transitions if transition.opens]
    if len(openings) != 1:
        yield f"exactly one transition opens a case (has no source), here: {', '.join(openings) or 'none'}"


def _state_mentions(process: Process) -> Iterator[tuple[str, str]]:
    yield "force_cancel", process.force_cancel.pending
    yield "force_cancel", process.force_cancel.to
    for transition in process.transitions:
        where = f"transition {transition.name}"
        for name in (*sorted(transition.source), *transition.targets, transition.pending, transition.undone):
            if name is not None:
                yield where, name


def _transition_faults(process: Process) -> Iterator[str]:
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    names = {transition.name for transition in process.transitions}
    pending = process.pending_states
    for transition in process.transitions:
        where = f"transition {transition.name}"
        if not transition.roles:
            yield f"{where}: nobody may take it (no roles)"
        for role in sorted(transition.roles - roles):
            yield f"{where}: unknown role {role}"
        for name in sorted(transition.four_eyes - names):
            yield f"{where}: four_eyes names the unknown transition {name}"
        if not transition.targets:
            yield f"{where}: leads nowhere"
        for name in transition.targets:
            if name in pending:
                yield f"{where}: leads to {name}, which is a pending state"
        if transition.steps and not transition.pending:
            yield f"{where}: has steps but no pending state to be in while they run"
        if not transition.pending and transition.source & pending:
            yield f"{where}: supersedes work, so it needs a pending state to be in while that is offset"
        if transition.pending and not transition.told and not transition.source & pending:
            yield f"{where}: has the pending state {transition.pending} but nothing to do in it"
        if not transition.told and len(transition.targets) > 1:
            yield f"{where}: has several targets but no step to decide between them"
        yield from (f"{where}: {fault}" for fault in _undoes_faults(process, transition))
        if transition.opens and transition.steps and not transition.undone:
            yield f"{where}: opens the case with steps, so it must say which state an undo leads to"
        if transition.undone in pending:
            yield f"{where}: an undo would lead to {transition.undone}, which is a pending state"
        if transition.revise and transition.input is Nothing:
            yield f"{where}: revises the subject but asks for no input"
    if process.force_cancel.pending in {target for t in process.transitions for target in t.targets}:
        yield f"force_cancel: {process.force_cancel.pending} is a target, not a pending state"
    if not process.state(process.force_cancel.to).final:
        yield f"force_cancel: {process.force_cancel.to} is not final"


def _undoes_faults(process: Process, transition: Transition) -> Iterator[str]:
    if transition.undoes and transition.opens:
        yield "opens the case, so there is nothing yet that it could undo"
    if transition.undoes and not transition.pending:
        yield "undoes what was done before, but has no pending state to be in meanwhile"
    names = [step.name for step in transition.undoes]
    yield from (f"undoes {name} twice" for name, n in Counter(names).items() if n > 1)
    for step in transition.undoes:
        if process.steps.get(step.name) is not step:
            yield f"undoes {step.name}, which is no step of this process"
        elif not step.compensable:
            yield f"undoes {step.name}, which has no compensation"


def _step_faults(process: Process) -> Iterator[str]:
    seen: dict[str, Step[Any]] = {}
    teams = process.teams | {ENGINEERING}
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    if process.owner not in teams:
        yield f"owner {process.owner} is not one of its teams"
    for transition in process.transitions:
        doubled = [name for name, n in Counter(step.name for step in transition.steps).items() if n > 1]
        for name in doubled:
            yield f"transition {transition.name}: step {name} stands twice"
        for step in transition.steps:
            where = f"step {step.name}"
            if seen.setdefault(step.name, step) is not step:
                yield f"{where}: two different steps have this name"
            if not NAME.fullmatch(step.name):
                yield f"{where}: names are lower case words joined by _"
            if process.owner_of(step) not in teams:
                yield f"{where}: owner {process.owner_of(step)} is not one of the process's teams"
            for role in sorted(step.skip_roles - roles):
                yield f"{where}: unknown role {role} may skip it"
            if step.exhausted == "undo" and step.undo is IMPOSSIBLE:
                yield f"{where}: exhausted means undo, but it can't be undone"
            if step.makes is not None and not {"sha256", "size"} <= set(step.result.model_fields):
                yield f"{where}: makes {step.makes.title}, and its result has no sha256 and size to find it by"
            elif step.makes is not None and not _only_hashes(step.result):
                yield f"{where}: makes {step.makes.title}, and its sha256 takes what is no hash (no pattern {HASH})"
            if not NAME.fullmatch(step.partner):
                yield f"{where}: partner {step.partner!r} is not a name"


def _only_hashes(result: type[BaseModel]) -> bool:
    """Its sha256 names a content, and no other path of the object store."""
    return result.model_json_schema()["properties"]["sha256"].get("pattern") == HASH


def _state_faults(process: Process) -> Iterator[str]:
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    sources = {name for transition in process.transitions for name in transition.source}
    for state in process.states:
        where = f"state {state.name}"
        pending = state.name in process.pending_states
        if state.waiting_on is not None and state.waiting_on not in roles:
            yield f"{where}: waits on the unknown role {state.waiting_on}"
        if pending and (state.final or state.waiting_on):
            yield f"{where}: is pending, so it can be neither final nor waiting on somebody"
        if not pending and not state.final and state.name not in sources:
            yield f"{where}: nobody can leave it, and it is not final"
        if state.claimable_by and (pending or state.final):
            yield f"{where}: is {'pending' if pending else 'final'}, so nobody works on a case there who could claim it"
        for role in sorted(state.claimable_by):
            if role not in roles:
                yield f"{where}: unknown role {role} may claim a case there"
            elif not any(state.name in each.source and role in each.roles for each in process.transitions):
                yield f"{where}: {role} may claim a case there, but take no transition from it"
        if state.final and (state.deadline or state.waiting_on):
            yield f"{where}: is final, so nobody can owe a move there"
        if state.deadline:
            yield from (f"{where}: {fault}" for fault in _deadline_faults(process, state, state.deadline))


def _deadline_faults(process: Process, state: State, deadline: Deadline) -> Iterator[str]:
    if deadline.after <= timedelta(0):
        yield "its deadline is not in the future"
    if state.name in process.pending_states - {transition.pending for transition in process.transitions}:
        yield "its deadline can't act: only what force_cancel takes back is under way there"
    match deadline.then:
        case Escalate(role):
            if role not in {known.name for known in process.roles} | ENGINE_ROLES:
                yield f"its deadline escalates to the unknown role {role}"
            if state.waiting_on is None and state.name not in process.pending_states:
                yield "its deadline escalates, but the state waits on nobody"
        case Take(name):
            transition = process.transition(name)
            if transition is None:
                yield f"its deadline takes the unknown transition {name}"
            elif state.name not in transition.source:
                yield f"its deadline takes {name}, which does not start here"
            elif requires_input(transition.input):
                yield f"its deadline takes {name}, which needs input that nobody gives"
            elif transition.confirmation is not None:
                yield f"its deadline takes {name}, which people must confirm"
            elif state.name == transition.pending:
                yield f"its deadline takes {name}, which would stay here"
        case Unwind():
            if process.confirmations.get("undo") is not None:
                yield "its deadline undoes, which people must confirm"
            leading = [t for t in process.transitions if state.name in {t.pending, *t.targets}]
            for transition in leading:
                if transition.opens and not transition.undone:
                    yield f"its deadline undoes {transition.name}, which can't be undone: it says not where to"
                elif state.name in (transition.undone, *transition.source):
                    yield f"its deadline undoes {transition.name}, which would come back here"
                elif transition.undoes and state.name != transition.pending:
                    yield f"its deadline undoes {transition.name}, which can't be: it took back what was done before"
        case Block(owner):
            if owner is not None and owner not in process.teams | {ENGINEERING}:
                yield f"its deadline blocks for {owner}, which is not one of the process's teams"


def requires_input(model: type[BaseModel]) -> bool:
    """Somebody has to say something."""
    return any(declared.is_required() for declared in model.model_fields.values())


def _confirmation_faults(process: Process) -> Iterator[str]:
    declared = [(f"transition {t.name}", t.confirmation) for t in process.transitions]
    declared += [(f"step {step.name}", step.skip_confirmation) for step in process.steps.values()]
    declared += [(f"override {name}", confirmation) for name, confirmation in process.confirmations.items()]
    roles = {role.name for role in process.roles} | ENGINE_ROLES
    for where, confirmation in declared:
        if confirmation is None:
            continue
        if confirmation.by < 1:
            yield f"{where}: a confirmation by {confirmation.by} people is none"
        if not confirmation.roles:
            yield f"{where}: nobody may confirm it (no roles)"
        for role in sorted(confirmation.groups - confirmation.roles):
            yield f"{where}: {role} must be among those who confirm it, and may not"
        if len(confirmation.groups) > confirmation.by > 0:
            yield f"{where}: {confirmation.by} people can't be of {len(confirmation.groups)} groups"
        for role in sorted(confirmation.roles - roles):
            yield f"{where}: unknown role {role} may confirm it"
        if not timedelta(0) < confirmation.expires <= LONGEST_PROPOSAL:
            yield f"{where}: a proposal stands for more than nothing and at most {LONGEST_PROPOSAL.days} days"
    if process.opening.confirmation is not None:
        yield f"transition {process.opening.name}: opens the case, so there is nothing yet to confirm it on"
    for transition in process.transitions:
        if transition.revise and transition.confirmation and transition.confirmation.when:
            yield f"transition {transition.name}: its confirmation looks at the subject, which it revises itself"
    for where, confirmation in declared:
        if confirmation and confirmation.when and not where.startswith("transition"):
            yield f"{where}: its confirmation looks at the subject, which only a transition's may"
    for name in sorted(set(process.confirmations) - CONFIRMABLE):
        yield f"override {name}: is none that can wait for confirmation"
    yield from _unconfirmed_consequences(process)


def _document_faults(process: Process) -> Iterator[str]:
    documents = process.documents
    looking = [step for step in process.steps.values() if step.each] if documents is None else []
    for step in looking:
        yield f"step {step.name}: told for each of several, and there are no documents to tell it for"
    if documents is None:
        return
    step = documents.checked_by
    if process.steps.get(step.name) is not step:
        yield f"documents: {step.name}, which looks at them, is a step of no transition"
    if not step.each or step.undo is not NONE_NEEDED:
        yield f"documents: {step.name} looks at each of them and changes nothing: it is `each` and needs no undo"
    resting = {state.name for state in process.states} - process.pending_states
    roles = {role.name for role in process.roles}
    for name, times in Counter(kind.name for kind in documents.kinds).items():
        if times > 1 or not NAME.fullmatch(name):
            yield f"document {name}: {'declared twice' if times > 1 else 'not a name'}"
    for kind in documents.kinds:
        for role in sorted(kind.roles - roles):
            yield f"document {kind.name}: nobody has the role {role}"
        for state in sorted(kind.states - resting):
            yield f"document {kind.name}: {state} is no state at rest"
        if not kind.roles or not kind.states or not kind.media_types or kind.most < 1:
            yield f"document {kind.name}: nobody could ever add one"


def _unconfirmed_consequences(process: Process) -> Iterator[str]:
    """What the engine would do by declaration although the same declaration says that people must confirm it."""
    for step in process.steps.values():
        if step.exhausted == "proceed" and process.skip_confirmation(step) is not None:
            yield f"step {step.name}: exhausted means going on without it, which people must confirm"
        if step.exhausted == "undo" and "undo" in process.confirmations:
            yield f"step {step.name}: exhausted means undo, which people must confirm"


def _reachability_faults(process: Process) -> Iterator[str]:
    reached: set[str] = set()
    waiting = [process.opening, *(t for t in process.transitions if not t.opens)]
    grew = True
    while grew:
        grew = False
        for transition in waiting:
            if transition.opens or transition.source & reached:
                ends = {*transition.targets, transition.pending, transition.undone} - {None}
                grew = grew or not ends <= reached
                reached |= cast("set[str]", ends)
    reached |= {process.force_cancel.pending, process.force_cancel.to}  # an operator can always get here
    for state in process.states:
        if state.name not in reached:
            yield f"state {state.name}: can't be reached"
