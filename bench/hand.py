"""The hand that works a case as people, API and worker would, by the engine's own commands.

The partners are stand-ins and nobody waits: `later` only marks where time passes.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from caseward.activity import Call, EffectRunner, NotNeeded
from caseward.cases import deadlines, operations, taking_back
from caseward.cases.attached import counting
from caseward.cases.commands import (
    open_case,
    refuse,
    request_claim,
    request_override,
    request_transition,
)
from caseward.cases.confirming import confirm_proposal
from caseward.cases.documents import Uploaded, add_document
from caseward.cases.envelope import Envelope
from caseward.cases.locked import lock_case, story_of
from caseward.claims import ClaimInput
from caseward.db.session import Database, database_now
from caseward.db.tables import Case, Operation
from caseward.errors import PartnerAnswer
from caseward.messages import DeadlineCall, FinishCall, Offset, StepAnswer, StepCall, TakeBackCall
from caseward.overrides import OVERRIDES
from caseward.partner import Sending, offers
from caseward.process import NONE_NEEDED, Step
from caseward.situation import Actor
from caseward.trace import continue_trace
from processes import CATALOGUE

KEY = "MODEL-KEY"  # business keys are this and a number
PERSON = "00"  # who acts in a model is called by the role and this

Answers = list[
    PartnerAnswer | NotNeeded | None
]  # in order; None is plain success, as is whatever comes behind the last


class StandIn:
    """Every partner: does what it is asked, unless its answers for this step say otherwise."""

    def __init__(self, name: str, answers: Answers) -> None:
        self.name, self.answers = name, answers

    @offers("act", deadline=timedelta(seconds=5), idempotent=True)
    async def repeatable(self, sending: Sending) -> str:
        return self._answer(sending)

    @offers("act", deadline=timedelta(seconds=5))
    async def stubborn(self, sending: Sending) -> str:
        return self._answer(sending)

    def _answer(self, sending: Sending) -> str:
        said = self.answers.pop(0) if self.answers else None
        if isinstance(said, PartnerAnswer):
            raise said
        return sending.key

    async def probe(self, sending: Sending, call: str) -> None:
        """Never asked."""

    def serve(self, step: Step[Any], direction: str) -> Callable[..., Awaitable[Any]]:
        """The step's activity."""
        method = self.stubborn if step.partner == "mail" else self.repeatable

        async def do(call: Call[Any]) -> Any:
            if self.answers and isinstance(self.answers[0], NotNeeded):
                return self.answers.pop(0)
            await call.send(method)
            return step.result.model_validate({name: _plausible(name, each) for name, each in _fields(step)})

        async def undo(call: Call[Any], _: Any) -> None:
            await call.send(method)

        return do if direction == "do" else undo


def _fields(step: Step[Any]) -> list[tuple[str, Any]]:
    return [(name, each.annotation) for name, each in step.result.model_fields.items() if each.is_required()]


def _plausible(name: str, kind: Any) -> Any:
    if name == "sha256":
        return uuid4().hex * 2
    return {bool: True, int: 1}.get(kind, f"{name[:2].upper()}-4711")


@dataclass
class Hand:
    """Works one case, as people, API and worker would."""

    database: Database
    number: int
    process: str = ""
    case_id: UUID = field(default_factory=uuid4)
    marks: list[tuple[datetime, timedelta]] = field(default_factory=list[tuple[datetime, timedelta]])
    rounds: int = 10
    """How often a case with a long history goes round."""

    async def now(self) -> datetime:
        async with self.database.transaction() as session:
            return await database_now(session)

    async def later(self, about: timedelta) -> None:
        """From here on it is so much later."""
        self.marks.append((await self.now(), about))

    async def open(self, process: str, role: str, **changes: Any) -> None:
        self.process = process
        await self.later(timedelta(0))
        model = CATALOGUE[process].subject
        example = model.model_json_schema()["examples"][0]
        async with self.database.transaction() as session:
            accepted = await open_case(
                session,
                CATALOGUE,
                process=process,
                business_key=f"{KEY}-{self.number:04}",
                subject=model.model_validate_json(json.dumps(example | changes)),
                envelope=_envelope(role),
            )
        self.case_id = accepted.case_id

    async def take(self, transition: str, role: str, **given: Any) -> UUID:
        declared = CATALOGUE[self.process].transition(transition)
        assert declared is not None, transition
        async with self.database.transaction() as session:
            accepted = await request_transition(
                session,
                CATALOGUE,
                process=self.process,
                case_id=self.case_id,
                transition=transition,
                input=declared.input.model_validate_json(json.dumps(given)),
                reason=None,
                envelope=_envelope(role),
            )
        return accepted.operation_id

    async def override(self, name: str, role: str, **given: Any) -> UUID:
        given.setdefault("reason", "Agreed by phone")
        async with self.database.transaction() as session:
            accepted = await request_override(
                session,
                CATALOGUE,
                case_id=self.case_id,
                override=name,
                input=OVERRIDES[name].input.model_validate_json(json.dumps(given)),
                envelope=_envelope(role),
            )
        return accepted.operation_id

    async def confirm(self, operation_id: UUID, role: str) -> None:
        async with self.database.transaction() as session:
            await confirm_proposal(
                session, CATALOGUE, operation_id=operation_id, reason="So do I", envelope=_envelope(role, "01")
            )

    async def claim(self, role: str) -> None:
        async with self.database.transaction() as session:
            await request_claim(
                session,
                CATALOGUE,
                case_id=self.case_id,
                claim="claim",
                input=ClaimInput(),
                envelope=_envelope(role),
            )

    async def attach(self, role: str, *names: str) -> None:
        for name in names:
            content = Uploaded(name=name, media_type="application/pdf", size=48_211, sha256=uuid4().hex * 2)
            async with self.database.transaction() as session:
                await add_document(
                    session,
                    CATALOGUE,
                    case_id=self.case_id,
                    kind="evidence",
                    content=content,
                    replaces=None,
                    envelope=_envelope(role),
                )

    async def hear_refusals(self, many: int) -> None:
        """Signals past the API that were not admitted: one entry each."""
        for _ in range(many):
            async with self.database.transaction() as session:
                await refuse(
                    session,
                    CATALOGUE,
                    case_id=self.case_id,
                    actor=Actor("temporal", frozenset(), "temporal"),
                    override="skip",
                    message="It is not one of those that a signal may ask for.",
                    claimed_by="kim",
                )

    async def deadline_passes(self) -> None:
        async with self.database.transaction() as session:
            await session.execute(
                text("UPDATE cases SET deadline_at = clock_timestamp() WHERE id = :id"), {"id": self.case_id}
            )
        async with self.database.transaction() as session:
            case = await session.get_one(Case, self.case_id)
            call = DeadlineCall(self.process, str(self.case_id), case.visit)
            await deadlines.pass_deadline(session, CATALOGUE, call)

    async def work(
        self, to_state: str | None = None, *, only: int | None = None, answers: Mapping[str, Answers] | None = None
    ) -> None:
        """What the worker does with the operation in flight, until it is over or a step needs something else."""
        scripted = {name: list(given) for name, given in (answers or {}).items()}
        process = CATALOGUE[self.process]
        async with self.database.transaction() as session:
            case = await session.get_one(Case, self.case_id)
            operation = await session.get_one(Operation, case.operation_id)
            loaded = await operations.load(session, CATALOGUE, self.case_id)
            documents = [str(row.id) for row in await counting(await lock_case(session, CATALOGUE, self.case_id))]
        ours = (case.process, str(case.id), str(operation.id), case.fence)
        for offset in loaded.order.offsets if loaded.order else []:
            if not await self._take_back(ours, offset, scripted):
                return
        story = story_of(process, operation)
        for step in story.steps[:only] if story else ():
            for item in documents if step.each else (None,):
                key = f"{operation.id}:{step.name}" + (f":{item}" if item else "")
                answer = await self._run(StepCall(*ours, step.name, key, item), scripted)
                if answer.state != "settled":
                    return
        if only is not None:
            return
        if story and story.undoes:
            call = TakeBackCall(*ours, [step.name for step in story.undoes])
            async with self.database.transaction() as session:
                owed = await taking_back.take_back(session, CATALOGUE, call)
            for offset in owed.offsets:
                if not await self._take_back(ours, offset, scripted):
                    return
        target = to_state or (story.targets[0] if story else None)
        async with self.database.transaction() as session:
            finished = await operations.finish(session, CATALOGUE, FinishCall(*ours, target))
        assert finished.state == "finished", finished

    async def _run(self, call: StepCall, scripted: dict[str, Answers]) -> StepAnswer:
        step = CATALOGUE[self.process].steps[call.step]
        given = scripted.get(call.step if call.direction == "do" else f"{call.step}_undo", [])
        runner = EffectRunner(self.database, CATALOGUE)
        answer = await self._once(runner, step, call, given)
        while answer.state == "retrying" and given:  # it has more to say
            await self._due(call.effect_key)
            answer = await self._once(runner, step, call, given)
        return answer

    async def _once(self, runner: EffectRunner, step: Step[Any], call: StepCall, given: Answers) -> StepAnswer:
        return await runner.run(CATALOGUE[self.process], StandIn(step.partner, given).serve(step, call.direction), call)

    async def _due(self, effect_key: str) -> None:
        async with self.database.transaction() as session:
            await session.execute(
                text("UPDATE effects SET next_attempt_at = clock_timestamp() WHERE key = :key"), {"key": effect_key}
            )

    async def _take_back(self, ours: tuple[str, str, str, int], offset: Offset, scripted: dict[str, Answers]) -> bool:
        step = CATALOGUE[self.process].steps[offset.step]
        if step.undo is NONE_NEEDED:
            return True
        call = StepCall(*ours, offset.step, f"{offset.effect_key}:undo", offset.item, "undo")
        return (await self._run(call, scripted)).state == "settled"


def _envelope(role: str, who: str = PERSON) -> Envelope:
    actor = Actor(f"{role.replace('_', '-')}-{who}", frozenset({role}))
    return Envelope(actor=actor, idempotency_key=str(uuid4()), traceparent=continue_trace(None))
