"""The declarations as documents: what a process is, for screens and for people, and the schemas of all input."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from api.bodies import opening_body, transition_body
from caseward.claims import ClaimInput
from caseward.documents.parts import Document
from caseward.overrides import OVERRIDES
from caseward.process import (
    Block,
    Catalogue,
    Confirmation,
    Escalate,
    Process,
    Step,
    Take,
    Transition,
    Unwind,
    hyphenated,
)


class RoleDeclaration(Document):
    """In what capacity somebody acts."""

    name: str
    title: str


class DeadlineDeclaration(Document):
    """How long a case may stay, and what follows: it escalates to a role, takes a transition, is undone, or blocks."""

    after_seconds: float
    counted_from: str | None
    """The instant of the subject's from which it counts; None is the entry into the state."""
    escalates_to: str | None
    takes: str | None
    undoes: bool
    blocks_for: str | None


class ConfirmationDeclaration(Document):
    """How many others must confirm it, and who may."""

    by: int
    roles: list[str]
    expires_after_seconds: float
    proposer_counts: bool
    groups: list[str]
    """Roles, each of which must be among those in which people confirm."""
    when: str | None
    """Of which cases, in words; None where of all."""


class StateDeclaration(Document):
    """Where the business may stand."""

    name: str
    title: str
    meaning: str
    final: bool
    pending: bool
    waiting_on: str | None
    claimable_by: list[str]
    deadline: DeadlineDeclaration | None


class TransitionDeclaration(Document):
    """A business move; the one that opens has no source."""

    name: str
    title: str
    opens: bool
    source: list[str]
    pending: str | None
    to: list[str]
    roles: list[str]
    four_eyes: list[str]
    """Whoever took one of these in this case may not take this one."""
    confirmation: ConfirmationDeclaration | None
    steps: list[str]
    undoes: list[str]
    """Steps of which it takes back what earlier operations left standing."""
    method: str
    href: str
    input_schema: str


class StepDeclaration(Document):
    """One outside change of a story."""

    name: str
    title: str
    partner: str
    owner: str
    undo: str
    """The title of its compensation, or `none_needed`, or `impossible`."""
    exhausted: str
    skip_roles: list[str]
    skip_confirmation: ConfirmationDeclaration | None
    """Who must confirm that it is left out or marked done."""
    result_schema: str


class OverrideDeclaration(Document):
    """An operator's move on the recovery itself."""

    name: str
    title: str
    roles: list[str]
    per_step: bool
    confirmation: ConfirmationDeclaration | None
    """Where neither transition nor step says otherwise."""
    method: str
    href: str
    input_schema: str


class ProcessRow(Document):
    """A process in the list."""

    name: str
    title: str
    href: str


class ProcessList(Document):
    """Every process that runs here."""

    processes: list[ProcessRow]


class ProcessDocument(Document):
    """A process as declared."""

    name: str
    title: str
    owner: str
    teams: list[str]
    roles: list[RoleDeclaration]
    states: list[StateDeclaration]
    transitions: list[TransitionDeclaration]
    steps: list[StepDeclaration]
    overrides: list[OverrideDeclaration]
    subject_schema: str


def process_list(catalogue: Catalogue) -> ProcessList:
    """All of them, in the order of the catalogue."""
    rows = [ProcessRow(name=p.name, title=p.title, href=f"/v1/processes/{p.name}") for p in catalogue.values()]
    return ProcessList(processes=rows)


def process_document(process: Process) -> ProcessDocument:
    """The declaration as a document."""
    return ProcessDocument(
        name=process.name,
        title=process.title,
        owner=process.owner,
        teams=sorted(process.teams),
        roles=[RoleDeclaration(name=role.name, title=role.title) for role in process.roles],
        states=[_state(process, name) for name in [state.name for state in process.states]],
        transitions=[_transition(process, transition) for transition in process.transitions],
        steps=[_step(process, step) for step in process.steps.values()],
        overrides=[
            OverrideDeclaration(
                name=override.name,
                title=override.title,
                roles=sorted(override.roles),
                per_step=override.per_step,
                confirmation=_confirmation(process.confirmations.get(override.name) or override.confirmation),
                method="POST",
                href=f"/v1/cases/{{case_id}}/overrides/{hyphenated(override.name)}",
                input_schema=f"/v1/schemas/override.{override.name}",
            )
            for override in OVERRIDES.values()
        ],
        subject_schema=f"/v1/schemas/{process.name}.subject",
    )


def _confirmation(declared: Confirmation | None) -> ConfirmationDeclaration | None:
    if declared is None:
        return None
    return ConfirmationDeclaration(
        by=declared.by,
        roles=sorted(declared.roles),
        expires_after_seconds=declared.expires.total_seconds(),
        proposer_counts=declared.proposer_counts,
        groups=sorted(declared.groups),
        when=declared.when.words if declared.when else None,
    )


def _state(process: Process, name: str) -> StateDeclaration:
    state = process.state(name)
    deadline = None
    if state.deadline is not None:
        then = state.deadline.then
        deadline = DeadlineDeclaration(
            after_seconds=state.deadline.after.total_seconds(),
            counted_from=state.deadline.counted_from.words if state.deadline.counted_from else None,
            escalates_to=then.role if isinstance(then, Escalate) else None,
            takes=then.transition if isinstance(then, Take) else None,
            undoes=isinstance(then, Unwind),
            blocks_for=(then.owner or process.owner) if isinstance(then, Block) else None,
        )
    return StateDeclaration(
        name=state.name,
        title=state.title,
        meaning=state.meaning,
        final=state.final,
        pending=state.name in process.pending_states,
        waiting_on=state.waiting_on,
        claimable_by=sorted(state.claimable_by),
        deadline=deadline,
    )


def _transition(process: Process, transition: Transition) -> TransitionDeclaration:
    href = f"/v1/{process.path}" + ("" if transition.opens else f"/{{case_id}}/{hyphenated(transition.name)}")
    return TransitionDeclaration(
        name=transition.name,
        title=transition.title,
        opens=transition.opens,
        source=sorted(transition.source),
        pending=transition.pending,
        to=list(transition.targets),
        roles=sorted(transition.roles),
        four_eyes=sorted(transition.four_eyes),
        confirmation=_confirmation(transition.confirmation),
        steps=[step.name for step in transition.steps],
        undoes=[step.name for step in transition.undoes],
        method="POST",
        href=href,
        input_schema=f"/v1/schemas/{process.name}.{transition.name}",
    )


def _step(process: Process, step: Step[Any]) -> StepDeclaration:
    return StepDeclaration(
        name=step.name,
        title=step.title,
        partner=step.partner,
        owner=process.owner_of(step),
        undo=step.undo if isinstance(step.undo, str) else step.undo.value,
        exhausted=step.exhausted,
        skip_roles=sorted(step.skip_roles),
        skip_confirmation=_confirmation(process.skip_confirmation(step)),
        result_schema=f"/v1/schemas/{process.name}.{step.name}.result",
    )


def schemas(catalogue: Catalogue) -> Mapping[str, dict[str, Any]]:
    """Every JSON Schema by its name: the whole body of each call, each subject, each step's result."""
    models: dict[str, type[BaseModel]] = {f"override.{row.name}": row.input for row in OVERRIDES.values()}
    models["claim"] = ClaimInput
    for process in catalogue.values():
        models[f"{process.name}.subject"] = process.subject
        for transition in process.transitions:
            body = opening_body(process) if transition.opens else transition_body(process, transition)
            models[f"{process.name}.{transition.name}"] = body
        models |= {f"{process.name}.{step.name}.result": step.result for step in process.steps.values()}
    return {name: model.model_json_schema() for name, model in models.items()}
