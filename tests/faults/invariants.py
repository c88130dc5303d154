"""What must hold whenever the dust has settled, checked over Postgres, the partners' ledger and Temporal."""

from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio.client import Client as TemporalClient

from caseward.cases.timeline import first_break
from caseward.db.session import Database
from caseward.db.tables import Case, Effect, Entry, Message, Operation
from caseward.messages import workflow_id
from processes import CATALOGUE

Json = dict[str, Any]


async def violations(database: Database, ledger: list[Json], temporal: TemporalClient) -> list[str]:
    """Everything that is broken, one line each; empty when all is well."""
    done = Counter(entry["key"] for entry in ledger)
    async with database.transaction() as session:
        cases = {case.id: case for case in await session.scalars(select(Case))}
        operations = {operation.id: operation for operation in await session.scalars(select(Operation))}
        effects = {effect.key: effect for effect in await session.scalars(select(Effect))}
        messages = list(await session.scalars(select(Message)))
        found = [
            *_effects_happened_once(effects, done),
            *_nobody_is_forgotten(cases, operations, effects),
            *_outbox_is_empty(messages),
            *await _timelines_are_whole(session, cases),
        ]
    return found + await _workflows_agree(temporal, cases)


def _effects_happened_once(effects: dict[str, Effect], done: Counter[str]) -> list[str]:
    found = [f"effect {key} happened {times} times at the partner" for key, times in done.items() if times > 1]
    found += [f"effect {key} happened, but nobody knows of it" for key in done if key not in effects]
    for key, effect in effects.items():
        if effect.outcome == "succeeded" and done[key] != 1:
            found.append(f"effect {key} counts as succeeded, the partner did it {done[key]} times")
        if effect.outcome == "failed" and done[key]:
            found.append(f"effect {key} counts as failed, the partner did it")
        if effect.outcome in {"not_needed", None} and done[key]:
            found.append(f"effect {key} was never sent, the partner did it")
        if effect.offset_at is not None:
            compensation = effects.get(f"{key}:undo")
            if compensation is None or compensation.state != "settled":
                found.append(f"effect {key} counts as offset without a compensation")
    return found


def _nobody_is_forgotten(cases: dict, operations: dict, effects: dict[str, Effect]) -> list[str]:
    driven = defaultdict(list)
    for effect in effects.values():
        driven[effect.driven_by].append(effect)
    return [*_operations_end(cases, operations, effects, driven), *_cases_wait_on_somebody(cases)]


def _operations_end(cases: dict, operations: dict, effects: dict[str, Effect], driven: dict) -> list[str]:
    found = []
    for operation in operations.values():
        case = cases[operation.case_id]
        unsettled = [effect.key for effect in driven[operation.id] if effect.state != "settled"]
        if operation.finished_at is not None and unsettled:
            found.append(f"operation {operation.name} {operation.id} is {operation.state} over unsettled {unsettled}")
        helps = operation.acts_on is not None and operation.effect_key is not None
        if operation.finished_at is None and case.operation_id != operation.id and not helps:
            found.append(f"operation {operation.name} {operation.id} is {operation.state}, but its case moved on")
        if operation.state == "completed" and operation.name != "undo":
            declared = CATALOGUE[operation.process].transition(operation.name)
            wanted = declared.steps if declared and operation.kind == "transition" else ()
            missing = [step.name for step in wanted if f"{operation.id}:{step.name}" not in effects]
            if missing and len(declared.targets) == 1:
                found.append(f"operation {operation.name} {operation.id} is completed without {missing}")
    return found


def _cases_wait_on_somebody(cases: dict) -> list[str]:
    found = []
    for case in cases.values():
        if case.operation_id is not None and case.recovery_owner is None:
            found.append(f"case {case.id} is {case.state}/{case.condition} and names nobody who decides")
        if case.condition == "waiting" and case.waiting_on is None:
            found.append(f"case {case.id} waits on nobody")
        if case.operation_id is None and case.state in CATALOGUE[case.process].pending_states:
            found.append(f"case {case.id} is {case.state} and nothing is in flight")
    return found


def _outbox_is_empty(messages: list[Message]) -> list[str]:
    return [
        f"message {m.id} is neither dispatched nor parked" for m in messages if not m.dispatched_at and not m.parked
    ]


async def _timelines_are_whole(session: AsyncSession, cases: dict) -> list[str]:
    found = []
    for case in cases.values():
        entries = list(await session.scalars(select(Entry).where(Entry.case_id == case.id).order_by(Entry.number)))
        broken = first_break(entries, case.timeline_head)
        if broken is not None:
            found.append(f"timeline of case {case.id} is broken at entry {broken}")
    return found


async def _workflows_agree(temporal: TemporalClient, cases: dict) -> list[str]:
    found = []
    for case in cases.values():
        handle = temporal.get_workflow_handle(workflow_id(case.process, case.id))
        status = await handle.query("status", result_type=dict)
        if (status.get("state"), status.get("condition")) != (case.state, case.condition):
            told = f"{status.get('state')}/{status.get('condition')} at {status.get('version')}"
            found.append(f"case {case.id} is {case.state}/{case.condition} at {case.version}, its workflow says {told}")
    return found
