"""What must hold whenever the dust has settled, checked over Postgres, the partners' ledger and Temporal.

Each violation is one line that begins with its case.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from caseward.cases.timeline import first_break
from caseward.db.session import Database, database_now
from caseward.db.tables import Attempt, Case, Effect, Entry, Message, Operation, Pause, ProposalAnswer
from caseward.messages import workflow_id
from caseward.outbox.store import TO_MAIL
from caseward.process import Catalogue
from caseward.situation import FINISHED
from processes import CATALOGUE
from tests.faults.hindsight import out_of_order
from tests.processes import PLAYBOOKS

Json = dict[str, Any]
# By how much an instant may have passed before it counts as forgotten: workers restart, and the machine is busy.
SLACK = timedelta(seconds=60)
AT_ONCE = 8  # questions to Temporal side by side

MAIL = ":mail:"  # stands in the keys of the engine's own mails


@dataclass(frozen=True)
class Record:
    """All that Postgres says of some cases, and how often the partners did each of their effects."""

    now: datetime
    cases: dict[UUID, Case]
    operations: dict[UUID, Operation]
    effects: dict[str, Effect]
    attempts: dict[tuple[str, int], Attempt]
    messages: list[Message]
    mailed: Counter[str]
    """How often each mail of the engine's reached the mail server, by its key."""
    entries: dict[UUID, list[Entry]]
    pauses: dict[str, Pause]
    done: Counter[str]
    confirmed: Counter[UUID] = field(default_factory=Counter)
    """How many people confirmed each proposal."""

    def of(self, key: str) -> str:
        """The case of an effect, as violations begin."""
        return f"case {self.effects[key].case_id}: "


async def violations(
    database: Database, ledger: list[Json], temporal: TemporalClient, *, only: set[UUID] | None = None
) -> list[str]:
    """Everything that is broken, in these cases or in all; empty when all is well."""
    record = await read(database, ledger, only=only)
    return [
        *of_record(record, CATALOGUE),
        *_businesses_keep_their_word(record, ledger),
        *await workflows_agree(temporal, record),
    ]


def _businesses_keep_their_word(record: Record, ledger: list[Json]) -> Iterator[str]:
    """What a business promises beyond what the engine does, as its playbook says."""
    for playbook in PLAYBOOKS.values():
        for key, words in playbook.promise(ledger):
            operation = record.operations.get(_operation_of(key) or UUID(int=0))
            if operation is not None:
                yield f"case {operation.case_id}: {words}"


async def read(database: Database, ledger: list[Json], *, only: set[UUID] | None = None) -> Record:
    """One consistent look, however long a busy machine takes over it."""
    async with database.transaction() as session:
        await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))

        async def rows(table: Any, *order: Any, case_id: Any) -> list[Any]:
            wanted = select(table).order_by(*order)
            return list(await session.scalars(wanted if only is None else wanted.where(case_id.in_(only))))

        effects = {row.key: row for row in await rows(Effect, Effect.key, case_id=Effect.case_id)}
        attempts = list(await session.scalars(select(Attempt).where(Attempt.effect_key.in_(effects))))
        operations = {row.id: row for row in await rows(Operation, Operation.id, case_id=Operation.case_id)}
        entries: dict[UUID, list[Entry]] = defaultdict(list)
        for entry in await rows(Entry, Entry.case_id, Entry.number, case_id=Entry.case_id):
            entries[entry.case_id].append(entry)
        keys = [entry["key"] for entry in ledger if MAIL not in entry["key"]]
        return Record(
            now=await database_now(session),
            cases={row.id: row for row in await rows(Case, Case.id, case_id=Case.id)},
            operations=operations,
            effects=effects,
            attempts={(row.effect_key, row.number): row for row in attempts},
            messages=await rows(Message, Message.id, case_id=Message.case_id),
            mailed=Counter(entry["key"] for entry in ledger if MAIL in entry["key"]),
            entries=entries,
            pauses={row.key: row for row in await session.scalars(select(Pause))},
            confirmed=Counter(
                await session.scalars(select(ProposalAnswer.operation_id).where(ProposalAnswer.answer == "confirmed"))
            ),
            done=Counter(key for key in keys if only is None or key in effects or _operation_of(key) in operations),
        )


def _operation_of(key: str) -> UUID | None:
    try:
        return UUID(key.partition(":")[0])
    except ValueError:
        return None


def of_record(record: Record, catalogue: Catalogue) -> list[str]:
    """What Postgres and the ledger say against each other, and Postgres against itself."""
    return [
        *_effects_happened_once(record),
        *_what_was_undone_is_offset(record, catalogue),
        *_operations_end(record, catalogue),
        *_cases_wait_on_somebody(record, catalogue),
        *_steps_wait_on_somebody(record),
        *_proposals_and_pauses_end(record),
        *_outbox_is_empty(record),
        *_mails_go_out_once(record),
        *_timelines_are_whole(record),
        *out_of_order(record.entries, record.effects),
    ]


def _effects_happened_once(record: Record) -> Iterator[str]:
    done = record.done
    for key in done:
        if key not in record.effects:
            operation = record.operations.get(_operation_of(key) or UUID(int=0))
            yield f"case {operation.case_id if operation else '?'}: effect {key} happened, but nobody knows of it"
    for key, effect in record.effects.items():
        which = f"{record.of(key)}effect {key}"
        if done[key] > 1:
            yield f"{which} happened {done[key]} times at the partner"
        if effect.outcome == "succeeded" and done[key] != 1:
            yield f"{which} counts as succeeded, the partner did it {done[key]} times"
        if effect.outcome == "failed" and effect.decision != "marked_done" and done[key]:
            yield f"{which} counts as failed, the partner did it"
        if effect.outcome in {"not_needed", None} and done[key]:
            yield f"{which} was never sent, the partner did it"
        if effect.attempt_count != sum(1 for of, _ in record.attempts if of == key):
            yield f"{which} counts {effect.attempt_count} attempts, and others are on record"


def _what_was_undone_is_offset(record: Record, catalogue: Catalogue) -> Iterator[str]:
    """The ledger decides: what happened and was taken back has its compensation there, or a person's word for it."""
    for key, effect in record.effects.items():
        which = f"{record.of(key)}effect {key}"
        compensation = record.effects.get(f"{key}:undo")
        if effect.direction == "undo":
            original = record.effects.get(effect.of_effect or "")
            if original is None or (record.done[key] and not (record.done[original.key] or original.decision)):
                yield f"{which} takes back what never happened"
            continue
        if effect.offset_at is not None and (compensation is None or compensation.state != "settled"):
            yield f"{which} counts as offset without a compensation"
        operation = record.operations[effect.operation_id]
        step = catalogue[operation.process].steps.get(effect.step)
        # What is still being offset is in the hands of the operation that drives it.
        over = record.operations[effect.driven_by].finished_at is not None and operation.finished_at is not None
        taken_back = operation.state in {"undone", "superseded"} and over and step is not None and step.compensable
        decided = compensation is not None and compensation.decision in {"skipped", "marked_done"}
        offset = record.done[f"{key}:undo"] or decided or (compensation and compensation.outcome == "not_needed")
        if record.done[key] and taken_back and not offset and not _adopted(record, effect):
            yield f"{which} was undone, but stands at the partner without its compensation"


def _adopted(record: Record, effect: Effect) -> bool:
    """A replay that was not taken back itself goes on with it as it stands."""
    replays = (row for row in record.operations.values() if row.plan and row.state not in {"undone", "superseded"})
    return effect.standing and any(effect.key in (row.plan or {})["reuse"].values() for row in replays)


def _operations_end(record: Record, catalogue: Catalogue) -> Iterator[str]:
    driven: dict[UUID, list[Effect]] = defaultdict(list)
    for effect in record.effects.values():
        driven[effect.driven_by].append(effect)
    for operation in record.operations.values():
        case = record.cases[operation.case_id]
        which = f"case {case.id}: operation {operation.name} {operation.id} is {operation.state}"
        if (operation.state in FINISHED) != (operation.finished_at is not None):
            yield f"{which}, finished at {operation.finished_at}"
        unsettled = [effect.key for effect in driven[operation.id] if effect.state != "settled"]
        if operation.finished_at is not None and unsettled:
            yield f"{which} over unsettled {unsettled}"
        helps = operation.acts_on == case.operation_id and operation.effect_key is not None
        undoing = operation.state == "undoing" and operation.superseded_by == case.operation_id
        at_hand = case.operation_id == operation.id or helps or undoing or operation.state == "proposed"
        if operation.finished_at is None and not at_hand:
            yield f"{which}, but its case moved on"
        if operation.state == "completed" and operation.kind == "transition" and not operation.plan:
            declared = catalogue[operation.process].transition(operation.name)
            keys = [f"{operation.id}:{step.name}" for step in declared.steps] if declared else []
            effects = [record.effects.get(key) for key in keys]
            if None in effects and declared and len(declared.targets) == 1:
                yield f"{which} without every step of its way"
            for effect in effects:
                if effect and effect.outcome != "succeeded" and not effect.decision and effect.outcome != "not_needed":
                    yield f"{which} over {effect.key}, which is {effect.outcome} and nobody decided on it"


def _cases_wait_on_somebody(record: Record, catalogue: Catalogue) -> Iterator[str]:
    for case in record.cases.values():
        which = f"case {case.id}: it is {case.state}/{case.condition}"
        if case.operation_id is not None and case.recovery_owner is None:
            yield f"{which} and names nobody who decides"
        if case.condition == "waiting" and case.waiting_on is None:
            yield f"{which} and waits on nobody"
        if case.operation_id is None and case.state in catalogue[case.process].pending_states:
            yield f"{which} and nothing is in flight"
        operation = record.operations.get(case.operation_id) if case.operation_id else None
        at_hand = [e for e in record.effects.values() if e.driven_by == case.operation_id and e.state != "settled"]
        idle = operation is not None and not at_hand and operation.blocked is None
        if idle and case.changed_at + SLACK < record.now and not case.paused:
            yield f"{which} since {case.changed_at}, and no step, timer or person is next"


def _steps_wait_on_somebody(record: Record) -> Iterator[str]:
    for key, effect in record.effects.items():
        if effect.state == "settled":
            continue
        which = f"{record.of(key)}step {key} is {effect.state}"
        if not effect.recovery_owner:
            yield f"{which} and names nobody who decides"
        fault = _NEXT[effect.state](record, effect) if effect.state in _NEXT else "which is no state"
        if fault is not None:
            yield f"{which}, {fault}"


def _running(record: Record, effect: Effect) -> str | None:
    attempt = record.attempts.get((effect.key, effect.attempt_count))
    leased = attempt is not None and attempt.lease_until + SLACK > record.now
    return None if leased else "but no attempt has a lease"


def _retrying(record: Record, effect: Effect) -> str | None:
    due = effect.next_attempt_at is not None and effect.next_attempt_at + SLACK > record.now
    return None if due else "but no attempt is due"


def _waiting(_record: Record, effect: Effect) -> str | None:
    return "without a limit" if effect.answer_by is None or effect.next_attempt_at is None else None


def _paused(record: Record, effect: Effect) -> str | None:
    return None if _paused_by_something(record, effect) else f"by {effect.paused_by}, which is no pause"


def _blocked(_record: Record, effect: Effect) -> str | None:
    return "without a cause" if effect.cause is None else None


_NEXT = {"running": _running, "retrying": _retrying, "waiting": _waiting, "paused": _paused, "blocked": _blocked}


def _paused_by_something(record: Record, effect: Effect) -> bool:
    if effect.paused_by is None:
        return False
    if effect.paused_by.startswith("case"):
        return record.cases[effect.case_id].paused is not None
    pause = record.pauses.get(effect.paused_by)
    return pause is not None and pause.state != "open"


def _proposals_and_pauses_end(record: Record) -> Iterator[str]:
    for operation in record.operations.values():
        which = f"case {operation.case_id}: proposal {operation.name} {operation.id}"
        if operation.state == "proposed" and operation.expires_at is None:
            yield f"{which} never expires"
        enough = record.confirmed[operation.id] >= operation.confirmations
        if operation.state == "proposed" and enough:
            yield f"{which} has everybody it needs, and was not accepted"
        if operation.state not in {"proposed", "declined", "expired", "superseded"} and not enough:
            yield f"{which} is {operation.state} with too few who confirmed"
    for case in record.cases.values():
        if case.paused is not None and not case.paused.get("reason"):
            yield f"case {case.id}: it is paused without a reason"


def _mails_go_out_once(record: Record) -> Iterator[str]:
    for message in record.messages:
        if message.destination != TO_MAIL:
            continue
        which = f"case {message.case_id}: mail {message.id}"
        times = record.mailed[f"{message.case_id}{MAIL}{message.id}"]
        if times > 1:
            yield f"{which} went out {times} times"
        if message.dispatched_at is not None and not times:
            yield f"{which} counts as sent, and nobody got it"


def _outbox_is_empty(record: Record) -> Iterator[str]:
    for message in record.messages:
        if message.dispatched_at is None and not message.parked:
            yield f"case {message.case_id}: message {message.id} is neither dispatched nor parked"
        if message.parked and not message.error:
            yield f"case {message.case_id}: message {message.id} is parked without a reason"


def _timelines_are_whole(record: Record) -> Iterator[str]:
    for case in record.cases.values():
        broken = first_break(record.entries[case.id], case.timeline_head)
        if broken is not None:
            yield f"case {case.id}: its timeline is broken at entry {broken}"
        told = Counter(e.operation_id for e in record.entries[case.id] if e.type == "operation.accepted")
        for operation_id, times in told.items():
            if times > 1:
                yield f"case {case.id}: operation {operation_id} was accepted {times} times"


async def workflows_agree(temporal: TemporalClient, record: Record) -> list[str]:
    """Postgres against Temporal: who is open, and what each workflow says of its case."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def ask(case: Case) -> list[str]:
        async with slots:
            return [f"case {case.id}: {fault}" async for fault in _workflow_faults(temporal, record, case)]

    return [line for lines in await asyncio.gather(*map(ask, record.cases.values())) for line in lines]


async def _workflow_faults(temporal: TemporalClient, record: Record, case: Case) -> Any:
    handle = temporal.get_workflow_handle(workflow_id(case.process, case.id))
    over = case.final and case.operation_id is None
    try:
        about = await handle.describe()
        status = await handle.query("status", result_type=dict)
    except (RPCError, WorkflowQueryFailedError) as fault:
        gone = isinstance(fault, RPCError) and fault.status == RPCStatusCode.NOT_FOUND
        # Temporal may forget what is closed; what an older story wrote, and closed, today's code can't replay (ADR 28).
        if over and (gone or "Nondeterminism" in str(fault)):
            return
        yield f"nobody can ask its workflow: {fault}"
        return
    if over and about.status is WorkflowExecutionStatus.TERMINATED:
        return  # by somebody who came at its last moment: there was nothing left for it to do
    wanted = WorkflowExecutionStatus.COMPLETED if over else WorkflowExecutionStatus.RUNNING
    if about.status is not wanted:
        yield f"it is {case.state}, its workflow {about.status.name if about.status else '?'}"
    if (status.get("state"), status.get("condition")) != (case.state, case.condition):
        told = f"{status.get('state')}/{status.get('condition')} at {status.get('version')}"
        yield f"it is {case.state}/{case.condition} at {case.version}, its workflow says {told}"
    operation = status.get("operation") or {"operation_id": None, "steps": []}
    if operation["operation_id"] != (str(case.operation_id) if case.operation_id else None):
        yield f"operation {case.operation_id} is in flight, its workflow says {operation['operation_id']}"
        return
    mine = {_shown(e) for e in record.effects.values() if e.driven_by == case.operation_id and e.state != "settled"}
    theirs = {(step["name"], step["item"], step["state"]) for step in operation["steps"] if step["state"] in _NEXT}
    if case.operation_id is not None and mine != theirs:
        yield f"its open steps are {sorted(map(str, mine))}, its workflow says {sorted(map(str, theirs))}"


def _shown(effect: Effect) -> tuple[str, str | None, str]:
    return f"{effect.step}:undo" if effect.direction == "undo" else effect.step, effect.item, effect.state


def by_case(found: Iterable[str]) -> Counter[str]:
    """How many violations each case has."""
    return Counter(line.removeprefix("case ").partition(":")[0] for line in found)
