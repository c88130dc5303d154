"""A desk from which tests run cases as API and worker would: real Postgres, no Temporal, no HTTP, no clock to wait for.

The test plays the workflow: it says which step comes next. `time_passes` moves every instant that a case waits for into
the past, which is what waiting would do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from sqlalchemy import select, text

from caseward.activity import Call, EffectRunner
from caseward.cases import deadlines, effects, operations, queries, taking_back
from caseward.cases.callbacks import PartnerEvent, receive
from caseward.cases.commands import (
    Accepted,
    open_case,
    request_claim,
    request_override,
    request_transition,
)
from caseward.cases.effects import OpenStep, Reservation
from caseward.cases.envelope import Envelope
from caseward.cases.locked import story_of
from caseward.cases.outcomes import Settlement
from caseward.cases.timeline import first_break
from caseward.claims import ClaimInput
from caseward.db.session import Database
from caseward.db.tables import Attempt, Base, Callback, Case, Effect, Entry, Message, Operation
from caseward.documents.case import CaseDocument
from caseward.documents.operation import OperationDocument
from caseward.errors import PartnerFailed
from caseward.messages import (
    BlockCall,
    DeadlineCall,
    FinishAnswer,
    FinishCall,
    News,
    Offset,
    StepAnswer,
    StepCall,
    TakeBackAnswer,
    TakeBackCall,
)
from caseward.overrides import OVERRIDES
from caseward.partner import Offer
from caseward.process import (
    IMPOSSIBLE,
    Catalogue,
    Nothing,
    Process,
)
from caseward.situation import Actor
from caseward.trace import continue_trace
from tests.integration.parcels import CLERK, OFFERS, SENIOR, Parcel, Partner, Receipt


@dataclass
class Desk:
    """Opens cases of one process."""

    database: Database
    process: Process
    partner: Partner = field(default_factory=Partner)
    subject: Callable[[], BaseModel] = lambda: Parcel(to="Oslo")

    def __post_init__(self) -> None:
        self.catalogue = Catalogue([self.process])
        self.runner = EffectRunner(self.database, self.catalogue)
        self.events = count(1)

    async def open(self, actor: Actor = CLERK, *, business_key: str | None = None, key: str | None = None) -> "Handle":
        async with self.database.transaction() as session:
            accepted = await open_case(
                session,
                self.catalogue,
                process=self.process.name,
                business_key=business_key or f"K-{uuid4()}",
                subject=self.subject(),
                envelope=envelope(actor, key),
            )
        return Handle(self, accepted.case_id)


def envelope(actor: Actor, key: str | None = None, if_match: Iterable[int | str] | None = None) -> Envelope:
    return Envelope(
        actor=actor,
        idempotency_key=key or str(uuid4()),
        traceparent=continue_trace(None),
        if_match=frozenset(if_match) if if_match is not None else None,
    )


@dataclass
class Handle:
    """One case, as whoever works on it holds it."""

    desk: Desk
    id: UUID

    # commands

    async def take(
        self,
        transition: str,
        actor: Actor = CLERK,
        *,
        key: str | None = None,
        reason: str | None = None,
        version: int | None = None,
        **given: Any,
    ) -> Accepted:
        declared = self.desk.process.transition(transition)
        model = declared.input if declared else Nothing
        async with self.desk.database.transaction() as session:
            return await request_transition(
                session,
                self.desk.catalogue,
                process=self.desk.process.name,
                case_id=self.id,
                transition=transition,
                input=model.model_validate(given),
                reason=reason,
                envelope=envelope(actor, key, None if version is None else [version]),
            )

    async def override(
        self, name: str, actor: Actor = SENIOR, *, key: str | None = None, version: int | None = None, **given: Any
    ) -> Accepted:
        given.setdefault("reason", "Agreed by phone")
        async with self.desk.database.transaction() as session:
            return await request_override(
                session,
                self.desk.catalogue,
                case_id=self.id,
                override=name,
                input=OVERRIDES[name].input.model_validate(given),
                envelope=envelope(actor, key, None if version is None else [version]),
            )

    async def claim(
        self, name: str = "claim", actor: Actor = CLERK, *, key: str | None = None, version: int | None = None
    ) -> Accepted:
        async with self.desk.database.transaction() as session:
            return await request_claim(
                session,
                self.desk.catalogue,
                case_id=self.id,
                claim=name,
                input=ClaimInput(),
                envelope=envelope(actor, key, None if version is None else [version]),
            )

    # the partner's side

    async def call_back(
        self,
        address: str,
        outcome: Literal["succeeded", "failed"] = "succeeded",
        *,
        number: str = "R1",
        event_id: str | None = None,
        **more: Any,
    ) -> str:
        """The partner calls back about a step; gives the event's id. It is stored, and nobody has taken it in yet."""
        effect = await self.effect(address)
        event = PartnerEvent(
            **{
                "partner": effect.partner,
                "event_id": event_id or f"evt-{self.id}-{next(self.desk.events)}",
                "effect_key": effect.key,
                "call": None,
                "outcome": outcome,
                "answer": {"number": number} if outcome == "succeeded" else None,
                "error": {"code": "no_such_street", "message": "We don't deliver there."}
                if outcome == "failed"
                else None,
                **more,
            }
        )
        await receive(self.desk.database, self.desk.catalogue, event)
        return event.event_id

    async def hear(self) -> None:
        """What the dispatcher does with every callback of the case that is not taken in: bring it to its body."""
        async with self.desk.database.transaction() as session:
            rows = await session.scalars(
                select(Callback)
                .where(Callback.case_id == self.id, Callback.used_at.is_(None))
                .order_by(Callback.received_at)
            )
            stored = [(row.partner, row.event_id, row.effect_key) for row in rows]
        for partner, event_id, key in stored:
            _, step, *undo = key.split(":")
            if step in self.desk.process.steps:
                body = self.body(step, "undo" if undo else "do")
                self.desk.runner.learn(self.desk.process, ":".join((step, *undo)), body)
            await self.desk.runner.hear(self.id, partner=partner, event_id=event_id)

    async def hears(self, *about: Any, **more: Any) -> None:
        """The partner calls back, and it is taken in."""
        await self.call_back(*about, **more)
        await self.hear()

    # the worker's side

    async def call(self, address: str, *, settle_only: bool = False, effect_key: str | None = None) -> StepCall:
        """The call that the workflow would make now for this step, or for its compensation (`{step}:undo`)."""
        case = await self.row()
        operation = await self.operation()
        name, _, suffix = address.partition(":")
        owed = [key for key in operation.offsets if key.split(":")[1] == name]
        key = effect_key or (owed[0] if owed else f"{operation.id}:{name}")
        return StepCall(
            *(case.process, str(case.id), str(operation.id), case.fence, name),
            effect_key=f"{key}:undo" if suffix else key,
            direction="undo" if suffix else "do",
            settle_only=settle_only,
        )

    async def run(
        self,
        address: str,
        *,
        call: StepCall | None = None,
        settle_only: bool = False,
        effect_key: str | None = None,
    ) -> StepAnswer:
        """One run of the step's activity."""
        call = call or await self.call(address, settle_only=settle_only, effect_key=effect_key)
        return await self.desk.runner.run(self.desk.process, self.body(call.step, call.direction), call)

    def body(self, name: str, direction: str) -> Callable[..., Awaitable[Any]]:
        declared = self.desk.process.steps[name]
        method = getattr(self.desk.partner, declared.partner)
        if declared.undo is IMPOSSIBLE and direction == "undo":

            async def impossible(call: Call[Parcel], done: Receipt) -> None:
                raise PartnerFailed("rejected", "no_compensation", "Nothing can offset this.")

            return impossible
        if direction == "undo":

            async def take_back(call: Call[Parcel], done: Receipt) -> None:
                await call.send(method, number=done.number)

            return take_back

        async def do(call: Call[Parcel]) -> Receipt:
            return await call.send(method, to=call.subject.to, until=call.accepted_at)

        return do

    async def begin(self, address: str, *, settle_only: bool = False) -> "Begun | StepAnswer":
        """Reserve an attempt and leave it there, as a worker that was killed would."""
        call = await self.call(address, settle_only=settle_only)
        offer = OFFERS.get(self.desk.process.steps[call.step].partner, OFFERS["askable"])
        async with self.desk.database.transaction() as session:
            opened = await effects.open_step(session, self.desk.catalogue, call)
            if not isinstance(opened, OpenStep):
                return opened
            request = await self._request(opened, call, offer)
            reserved = await effects.reserve(opened, call, offer, offer.call, request)
        return Begun(self, call, offer, reserved) if isinstance(reserved, Reservation) else reserved

    async def _request(self, opened: OpenStep, call: StepCall, offer: Offer) -> dict[str, Any]:
        """What the step's body would have sent."""
        if self.desk.process.subject is not Parcel:
            return {"call": offer.call, "arguments": {}}
        exchange = Call(opened, call, Parcel.model_validate(opened.subject))
        done = () if opened.original is None else (Receipt.model_validate(opened.original),)
        body = asyncio.ensure_future(self.body(call.step, call.direction)(exchange, *done))
        arguments = (await exchange.asked).arguments
        body.cancel()
        return {"call": offer.call, "arguments": to_jsonable_python(arguments)}

    async def finish(self, to_state: str | None = None) -> FinishAnswer:
        operation, case = await self.operation(), await self.row()
        call = FinishCall(case.process, str(case.id), str(operation.id), case.fence, to_state)
        async with self.desk.database.transaction() as session:
            return await operations.finish(session, self.desk.catalogue, call)

    async def take_back(self, *steps: str) -> TakeBackAnswer:
        """The story has come to where it takes back what earlier operations left standing: all it may, or these."""
        operation, case = await self.operation(), await self.row()
        declared = story_of(self.desk.process, operation)
        named = list(steps) or [step.name for step in (declared.undoes if declared else ())]
        call = TakeBackCall(case.process, str(case.id), str(operation.id), case.fence, named)
        async with self.desk.database.transaction() as session:
            return await taking_back.take_back(session, self.desk.catalogue, call)

    async def take_back_one(self, offset: Offset) -> StepAnswer:
        """What the workflow does with each of them."""
        if not offset.settled:
            answer = await self.run(offset.step, settle_only=True, effect_key=offset.effect_key)
            if answer.state != "settled" or not answer.happened:
                return answer
        return await self.run(f"{offset.step}:undo", effect_key=offset.effect_key)

    async def block_story(self, message: str = "a fault of ours") -> News:
        operation, case = await self.operation(), await self.row()
        call = BlockCall(case.process, str(case.id), str(operation.id), case.fence, "story_failed", message)
        async with self.desk.database.transaction() as session:
            return await operations.block_operation(session, self.desk.catalogue, call)

    async def pass_deadline(self, visit: int | None = None) -> News:
        case = await self.row()
        call = DeadlineCall(case.process, str(case.id), case.visit if visit is None else visit)
        async with self.desk.database.transaction() as session:
            return await deadlines.pass_deadline(session, self.desk.catalogue, call)

    async def work(self, to_state: str | None = None) -> str:
        """Play the workflow until the operation is over or somebody has to help; says how it ended."""
        for _ in range(10):
            operation = await self.operation()
            async with self.desk.database.transaction() as session:
                loaded = await operations.load(session, self.desk.catalogue, self.id)
            for offset in loaded.order.offsets if loaded.order else []:
                answer = await self.take_back_one(offset)
                if answer.state != "settled":
                    return answer.state
            declared = story_of(self.desk.process, operation)
            for each in declared.steps if declared else ():
                answer = await self.run(each.name, effect_key=f"{operation.id}:{each.name}")
                if answer.state != "settled":
                    return answer.state
            for offset in (await self.take_back()).offsets if declared and declared.undoes else ():
                answer = await self.take_back_one(offset)
                if answer.state != "settled":
                    return answer.state
            finished = await self.finish(to_state or (declared.targets[0] if declared else None))
            if finished.state != "offsets":
                return finished.state
        return "endless"

    async def time_passes(self, by: timedelta) -> None:
        """Whatever the case waits for comes nearer by this much."""
        shifts = {
            "effects": ("next_attempt_at", "maybe_sent_until", "answer_by"),
            "cases": ("deadline_at",),
        }
        async with self.desk.database.transaction() as session:
            for table, columns in shifts.items():
                own = "id" if table == "cases" else "case_id"
                changes = ", ".join(f"{column} = {column} - :by" for column in columns)
                await session.execute(
                    text(f"UPDATE {table} SET {changes} WHERE {own} = :id"), {"by": by, "id": self.id}
                )
            await session.execute(
                text(
                    "UPDATE attempts SET lease_until = lease_until - :by, started_at = started_at - :by "
                    "WHERE effect_key IN (SELECT key FROM effects WHERE case_id = :id)"
                ),
                {"by": by, "id": self.id},
            )

    # looking

    async def row(self) -> Case:
        async with self.desk.database.transaction() as session:
            return await session.get_one(Case, self.id)

    async def operation(self, operation_id: UUID | None = None) -> Operation:
        """The operation of this id, or the one in flight."""
        async with self.desk.database.transaction() as session:
            wanted = operation_id or (await session.get_one(Case, self.id)).operation_id
            assert wanted is not None, "no operation is in flight"
            return await session.get_one(Operation, wanted)

    async def effects(self) -> dict[str, Effect]:
        """Every effect of the case by its address; of several the latest."""
        async with self.desk.database.transaction() as session:
            rows = await session.scalars(select(Effect).where(Effect.case_id == self.id).order_by(Effect.reserved_at))
            return {f"{row.step}:undo" if row.direction == "undo" else row.step: row for row in rows}

    async def effect(self, address: str) -> Effect:
        return (await self.effects())[address]

    async def attempts(self, address: str) -> list[Attempt]:
        effect = await self.effect(address)
        async with self.desk.database.transaction() as session:
            return await effects.attempts_of(session, [effect.key])

    async def document(self, actor: Actor = SENIOR) -> CaseDocument:
        async with self.desk.database.sessions() as session:
            return await queries.get_case(session, self.desk.catalogue, case_id=self.id, actor=actor)

    async def operation_document(self, operation_id: UUID, actor: Actor = SENIOR) -> OperationDocument:
        async with self.desk.database.sessions() as session:
            return await queries.get_operation(session, self.desk.catalogue, operation_id=operation_id, actor=actor)

    async def entries(self) -> list[Entry]:
        async with self.desk.database.transaction() as session:
            return list(await session.scalars(select(Entry).where(Entry.case_id == self.id).order_by(Entry.number)))

    async def timeline(self) -> list[str]:
        return [entry.type for entry in await self.entries()]

    async def messages(self) -> list[Message]:
        async with self.desk.database.transaction() as session:
            return list(await session.scalars(select(Message).where(Message.case_id == self.id).order_by(Message.id)))

    async def chain_break(self) -> int | None:
        return first_break(await self.entries(), (await self.row()).timeline_head)

    async def dump(self) -> dict[str, list[str]]:
        """Every row that belongs to the case, as text."""
        return await dump(self.desk.database, self.id)


NO_CASES_OWN = frozenset({"pauses", "pause_changes", "bulk_runs", "delegations", "known", "sessions", "saved_views"})


async def dump(database: Database, case_id: UUID | None = None) -> dict[str, list[str]]:
    """Every row there is, or those of one case."""
    rows: dict[str, list[str]] = {}
    async with database.transaction() as session:
        for table in Base.metadata.sorted_tables:
            if case_id and table.name in NO_CASES_OWN:
                continue
            if table.name == "attempts":
                where = "effect_key IN (SELECT key FROM effects WHERE case_id = :id)"
            else:
                where = "id = :id" if table.name == "cases" else "case_id = :id"
            statement = f"SELECT t::text FROM {table.name} t WHERE {where if case_id else 'true'} ORDER BY 1"
            rows[table.name] = list(await session.scalars(text(statement), {"id": case_id} if case_id else {}))
    return rows


@dataclass
class Begun:
    """An attempt under its lease."""

    case: Handle
    call: StepCall
    offer: Offer
    reservation: Reservation

    async def settle(self, outcome: Settlement | str, **more: Any) -> StepAnswer:
        settlement = outcome if isinstance(outcome, Settlement) else OUTCOMES[outcome]
        settlement = replace(settlement, **more)
        async with self.case.desk.database.transaction() as session:
            return await effects.settle(
                session,
                self.case.desk.catalogue,
                self.call,
                attempt_number=self.reservation.attempt,
                offer=self.offer,
                settlement=settlement,
            )


OUTCOMES: dict[str, Settlement] = {
    "succeeded": Settlement(outcome="succeeded", result={"number": "R1"}),
    "unknown": Settlement(outcome="unknown", code="timeout", message="No answer came."),
    "transient": Settlement(outcome="failed", error_class="transient", code="busy", message="Come back later."),
    "rejected": Settlement(outcome="failed", error_class="rejected", code="no_such_street", message="No."),
    "acknowledged": Settlement(outcome="acknowledged"),
    "code_error": Settlement(outcome="unknown", code="KeyError", message="Our code failed.", cause="code_error"),
}


async def all_at_once(*work: Awaitable[Any]) -> list[Any]:
    """Side by side; what each returned or raised, in order."""

    async def caught(each: Awaitable[Any]) -> Any:
        try:
            return await each
        except Exception as fault:  # noqa: BLE001 - the test looks at it
            return fault

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caught(each)) for each in work]
    return [task.result() for task in tasks]
