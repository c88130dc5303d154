"""The steps of an operation, begun or not, with their attempts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from caseward.documents.parts import Document
from caseward.process import Process, Step
from caseward.situation import UNDO_SUFFIX, EffectView, step_title


class AttemptDocument(Document):
    """One try."""

    number: int
    outcome: str | None
    started_at: datetime
    ended_at: datetime | None
    error: dict[str, Any] | None


class StepDocument(Document):
    """One step of an operation, or the compensation of one."""

    name: str
    item: str | None
    title: str
    direction: str
    state: str
    outcome: str | None
    effect_key: str | None
    partner: str
    recovery_owner: str
    since: datetime | None
    result: dict[str, Any] | None
    next_attempt_at: datetime | None
    fingerprint: str | None = None
    attempts: list[AttemptDocument] | None = None


def step_documents(
    process: Process,
    declared: Sequence[Step[Any]],
    effects: Sequence[EffectView],
    offsets: Sequence[EffectView],
    attempts: Mapping[str, list[AttemptDocument]] | None = None,
) -> list[StepDocument]:
    """An operation's steps: what it declares, begun or not, and the compensation of every effect it has to offset."""
    documents: list[StepDocument] = []
    names, offset_keys = {step.name for step in declared}, {offset.key for offset in offsets}
    doing = [e for e in effects if e.direction == "do" and not (e.key in offset_keys and e.step in names)]
    of_step = {effect.step: [e for e in doing if e.step == effect.step] for effect in doing}
    for step in declared:
        begun = of_step.pop(step.name, [])
        documents += [_begun(process, effect, attempts) for effect in begun] or [_not_begun(process, step, None)]
    documents += [_begun(process, effect, attempts) for rest in of_step.values() for effect in rest]
    undoing = {effect.key: effect for effect in effects if effect.direction == "undo"}
    for offset in offsets:
        if offset.unsettled and offset.step in names:  # what became of it comes first
            documents.append(_begun(process, offset, attempts))
        compensation = undoing.get(offset.key + UNDO_SUFFIX)
        if compensation is not None:
            documents.append(_begun(process, compensation, attempts))
        elif offset.step_state != "voided" and offset.step in process.steps:
            documents.append(_not_begun(process, process.steps[offset.step], offset))
    return documents


def _begun(process: Process, effect: EffectView, attempts: Mapping[str, list[AttemptDocument]] | None) -> StepDocument:
    step = process.steps.get(effect.step)
    return StepDocument(
        name=effect.address,
        item=effect.item,
        title=step_title(step, effect.direction) if step else effect.step,
        direction=effect.direction,
        state=effect.step_state,
        outcome=effect.outcome,
        effect_key=effect.key,
        partner=effect.partner,
        recovery_owner=effect.decider,
        since=effect.since,
        result=dict(effect.result) if effect.result is not None else None,
        next_attempt_at=effect.next_attempt_at,
        fingerprint=effect.fingerprint,
        attempts=None if attempts is None else attempts.get(effect.key, []),
    )


def _not_begun(process: Process, step: Step[Any], offset: EffectView | None) -> StepDocument:
    return StepDocument(
        name=step.name if offset is None else step.name + UNDO_SUFFIX,
        item=offset.item if offset else None,
        title=step_title(step, "do" if offset is None else "undo"),
        direction="do" if offset is None else "undo",
        state="pending",
        outcome=None,
        effect_key=None,
        partner=step.partner,
        recovery_owner=process.owner_of(step),
        since=None,
        result=None,
        next_attempt_at=None,
    )
