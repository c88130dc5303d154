"""Cells: one step, one fault, one answer of the operator, played on a case of its own and held against the promises."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import bindparam, func, select

from caseward.cases import queries
from caseward.cases.commands import Accepted, open_case, request_override, request_transition
from caseward.cases.confirming import confirm_proposal
from caseward.cases.envelope import Envelope
from caseward.db.tables import Case as Row
from caseward.db.tables import Effect
from caseward.documents.case import ActionDocument, CaseDocument
from caseward.documents.operation import OperationDocument
from caseward.documents.steps import StepDocument
from caseward.errors import CasewardError
from caseward.messages import workflow_id
from caseward.overrides import OVERRIDES
from caseward.policy import counts
from caseward.process import OPERATOR, SENIOR_OPERATOR, Confirmation, Process, Step, Transition
from caseward.situation import Actor
from caseward.trace import continue_trace
from dev.drill.world import World

FAULTS: Mapping[str, str] = {
    "partner error": "error",
    "exhaustion": "error",
    "reject": "reject",
    "lost reply": "lose_reply",
    "lost request": "lose_request",
    "acknowledged, never answered": "callback_never",
}
ANSWERS = ("retry", "skip", "mark_done", "undo", "force_cancel", "replay")
PER_STEP = frozenset({"retry", "skip", "mark_done"})
AT_WORK = frozenset({"queued", "running", "undoing"})
LONG = 3600.0  # real seconds, which no drill lasts
SOON, OVERDUE, LATER = timedelta(milliseconds=200), timedelta(seconds=1), timedelta(minutes=1)
TURNS = 3  # looks at what is overdue, until it counts as waiting
TURNS_LOST = 20  # and until its run counts as lost
LISTEN = 0.5  # real seconds
LOST_AFTER = 10.0  # real seconds in which nobody did anything, until the run of a case at work counts as lost
PATIENCE = 600.0  # real seconds until a cell that comes to no rest is a dead end
DECISIONS = 4  # how many further questions an answer may raise before that is one
OPERATORS = Actor("drill-operator", frozenset({OPERATOR, SENIOR_OPERATOR}))
_numbers = count(1)
# Made once, because making it takes longer than running it.
_DUE = select(func.min(Effect.next_attempt_at)).where(Effect.driven_by == Row.operation_id).scalar_subquery()
_GLANCE = select(Row.condition, Row.operation_id, _DUE).where(Row.id == bindparam("case_id"))


class Broken(Exception):
    """A promise was not kept."""


@dataclass(frozen=True)
class Place:
    """A step of a transition, or its compensation after that transition was completed."""

    transition: Transition
    step: Step[Any]
    undoing: bool = False

    @property
    def address(self) -> str:
        """As the effect's key ends."""
        return f"{self.step.name}:undo" if self.undoing else self.step.name


@dataclass
class Seen:
    """One row: what people saw, and what came of it."""

    place: Place
    fault: str
    answer: str = ""
    state: str = ""
    condition: str = ""
    sentence: str = ""
    owner: str = ""
    offered: tuple[str, ...] = ()
    outcome: str = ""
    broken: list[str] = field(default_factory=list[str])


def places(process: Process) -> list[Place]:
    """Each step once, in the first transition that has it, and each compensation."""
    found: dict[str, Place] = {}
    for transition in process.transitions:
        for step in transition.steps:
            found.setdefault(step.name, Place(transition, step))
    backwards = [
        Place(place.transition, place.step, undoing=True) for place in found.values() if place.step.compensable
    ]
    return [*found.values(), *backwards]


def way(process: Process, transition: Transition) -> list[Transition]:
    """The transitions that lead from the opening to where this one is taken."""
    start = process.opening.targets
    queue: deque[tuple[str, list[Transition]]] = deque((state, []) for state in start)
    seen = set(start)
    while queue:
        state, taken = queue.popleft()
        if state in transition.source:
            return taken
        for each in process.transitions:
            # A story takes its first target where all goes well.
            if state in each.source and each.targets[0] not in seen:
                seen.add(each.targets[0])
                queue.append((each.targets[0], [*taken, each]))
    message = f"nothing leads to {transition.name}"
    raise Broken(message)


class Player:
    """Plays the cells of one process."""

    def __init__(self, world: World, process: Process, results: dict[str, dict[str, Any]]) -> None:
        self.world = world
        self.process = process
        self.results = results
        """By step: a result that its partner once gave, for `mark_done`."""

    async def play(self, place: Place, fault: str, answer: str | None = None) -> Seen:
        """One cell. Without `answer` it ends where people would have to decide."""
        seen, case = Seen(place, fault, answer or ""), Case(self)
        try:
            async with self.world.clock.attended():
                await self._play(seen, case)
        except Broken as broken:
            seen.broken.append(str(broken))
        except CasewardError as refused:
            seen.broken.append(f"refused: {type(refused).__name__}: {refused}")
        finally:
            self.world.clock.runs.discard(case.workflow)
        return seen

    async def _play(self, seen: Seen, case: "Case") -> None:
        place = seen.place
        key = await self._come_to(case, place, seen.fault)
        document = await case.rest()
        await case.check(document, seen)
        self._show(seen, document)
        expected = self._targets(place)
        if document.condition == "blocked" and seen.answer:
            after = await case.answer(document, seen, key)
            if after is None:
                return
            expected = after
            document = await case.see_through(seen)
        if document.condition != "blocked":
            seen.outcome = self.process.state(document.state).title
            if document.state not in expected:
                raise Broken(f"ended in {document.state}, not in {' or '.join(sorted(expected))}")
        await case.learn()
        for effect, times in await case.ledger():
            if times > 1:
                raise Broken(f"the effect {effect} happened {times} times")

    async def _come_to(self, case: "Case", place: Place, fault: str) -> str:
        """Bring the case before the step, and its partner to do wrong; gives the effect's key."""
        opening = place.transition is self.process.opening
        if not opening:
            await case.open(None, None)
            for transition in way(self.process, place.transition):
                await case.settle()
                await case.take(transition, None, None)
            await case.settle()
        aim = (None, None) if place.undoing else (place, fault)
        operation = await (case.open(*aim) if opening else case.take(place.transition, *aim))
        key = f"{operation}:{place.address}"
        if place.undoing:
            await case.settle()
            await self.world.fault(**self.order(place, fault), key=key)
            await case.override("undo", None)
        return key

    def order(self, place: Place, fault: str) -> dict[str, Any]:
        """The fault as the sandbox takes it, still without the effect that it aims at."""
        mode = FAULTS[fault]
        times = len(place.step.retry.waits) + 1 if fault == "exhaustion" else 1
        order: dict[str, Any] = {"partner": "*", "call": "*", "mode": mode, "times": times}
        return order | ({"seconds": LONG} if mode == "callback_never" else {})

    def _targets(self, place: Place) -> set[str]:
        transition = place.transition
        ends = {transition.undone} if transition.undone else set(transition.source)
        if place.undoing:
            return {state for state in ends if state}
        found = set(transition.targets)
        return found | {state for state in ends if state} if place.step.exhausted == "undo" else found

    def after(self, answer: str, place: Place) -> set[str]:
        """The states to which this answer may lead."""
        transition = place.transition
        back = {transition.undone} if transition.undone else set(transition.source)
        match answer:
            case "force_cancel":
                return {self.process.force_cancel.to}
            case "undo":
                return {state for state in back if state}
            case "replay":
                return set(transition.targets)
            case _:
                return self._targets(place)

    def _show(self, seen: Seen, document: CaseDocument) -> None:
        info = document.condition_info
        seen.state = document.state_info.title
        seen.condition, seen.sentence, seen.owner = document.condition, info.sentence, info.recovery_owner or ""
        seen.offered = tuple(
            dict.fromkeys(a.name for a in document.actions if a.allowed and a.kind == "override" and a.name in ANSWERS)
        )


class Case:
    """One case of a cell, in the hands of people who do what they are offered."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.world = player.world
        self.process = player.process
        self.id = UUID(int=0)
        self.operations: list[UUID] = []
        self.retried: set[str | None] = set()

    @property
    def workflow(self) -> str:
        """The id of its workflow."""
        return workflow_id(self.process.name, str(self.id))

    # what people do

    async def open(self, place: Place | None, fault: str | None) -> UUID:
        """Open it, with the example that the subject's schema gives."""
        subject = self.process.subject.model_validate(_example(self.process.subject))
        async with self.world.outgoing:
            await self.world.clock.agree()
            async with self.world.database.transaction() as session:
                accepted = await open_case(
                    session,
                    self.world.catalogue,
                    process=self.process.name,
                    business_key=f"DRILL-{uuid4()}",
                    subject=subject,
                    envelope=_envelope(_somebody(self.process.opening.roles)),
                )
            self.id = accepted.case_id
            self.world.clock.runs.add(self.workflow)
            await self._aim(place, fault, accepted)
        return self._note(accepted)

    async def take(self, transition: Transition, place: Place | None, fault: str | None) -> UUID:
        """Take a transition, with its example, by somebody who never touched the case, confirmed by others."""
        given = transition.input.model_validate(_example(transition.input))
        who = _somebody(transition.roles)
        async with self.world.outgoing:
            await self.world.clock.agree()
            async with self.world.database.transaction() as session:
                accepted = await request_transition(
                    session,
                    self.world.catalogue,
                    process=self.process.name,
                    case_id=self.id,
                    transition=transition.name,
                    input=given,
                    reason="Drill",
                    envelope=_envelope(who),
                )
            await self._confirm(accepted, transition.confirmation, who)
            await self._aim(place, fault, accepted)
        return self._note(accepted)

    async def override(self, name: str, address: str | None, **given: Any) -> UUID:
        """An override by senior operators, confirmed by others where they must."""
        declared = OVERRIDES[name]
        fields = {"reason": "Drill", **({"step": address} if address else {}), **given}
        await self.world.clock.agree()
        async with self.world.database.transaction() as session:
            accepted = await request_override(
                session,
                self.world.catalogue,
                case_id=self.id,
                override=name,
                input=declared.input.model_validate(fields),
                envelope=_envelope(OPERATORS),
            )
        own = self.process.steps.get((address or "").partition(":")[0])
        needed = self.process.skip_confirmation(own, name) if name in {"skip", "mark_done"} else None
        await self._confirm(
            accepted, needed or self.process.confirmations.get(name) or declared.confirmation, OPERATORS
        )
        return self._note(accepted)

    async def _confirm(self, accepted: Accepted, needed: Confirmation | None, proposer: Actor) -> None:
        if not accepted.proposed or needed is None:
            return
        for _ in range(needed.by - counts(needed, proposer)):
            async with self.world.database.transaction() as session:
                await confirm_proposal(
                    session,
                    self.world.catalogue,
                    operation_id=accepted.operation_id,
                    reason="Drill",
                    envelope=_envelope(_somebody(needed.roles)),
                )

    async def _aim(self, place: Place | None, fault: str | None, accepted: Accepted) -> None:
        if place is not None and fault is not None:
            key = f"{accepted.operation_id}:{place.address}"
            await self.world.fault(**self.player.order(place, fault), key=key)

    def _note(self, accepted: Accepted) -> UUID:
        self.operations.append(accepted.operation_id)
        return accepted.operation_id

    async def answer(self, document: CaseDocument, seen: Seen, key: str) -> set[str] | None:
        """Give the row's answer, offered or not; None where it was refused as announced. Raises Broken."""
        name, place = seen.answer, seen.place
        address = _address(_blocked(document))
        step = address if name in PER_STEP else None
        offer = _action(document, name, step)
        given = await self._given(name, document, key)
        if given is None:
            seen.outcome = "not true: it happened"
            return None
        try:
            if name == "replay":
                given = {"step": place.step.name, "plan_hash": await self._plan(place.step.name)}
                step = None
            await self.override(name, step, **given)
        except CasewardError as refused:
            codes = [reason.code for reason in getattr(refused, "reasons", ())]
            if offer.allowed:
                raise Broken(f"{name} was offered and refused: {codes or refused}") from None
            announced = [reason.code for reason in offer.reasons]
            if name != "replay" and codes and codes != announced:
                raise Broken(f"{name} was refused for {codes}, announced was {announced}") from None
            seen.outcome = f"not offered: {', '.join(announced)}"
            return None
        if not offer.allowed:
            raise Broken(f"{name} was not offered and accepted")
        return self.player.after(name, place)

    async def see_through(self, seen: Seen) -> CaseDocument:
        """Decide what else comes up after the answer, until the case is at rest. Raises Broken."""
        for _ in range(DECISIONS):
            document = await self.rest()
            await self.check(document, seen)
            if document.operation is None:
                return document
            await self.decide(document)
        raise Broken(f"still in flight after {DECISIONS} more decisions")

    async def _given(self, name: str, document: CaseDocument, key: str) -> dict[str, Any] | None:
        """What an honest operator says, who has asked the partner; None where nothing honest can be said."""
        step = _blocked(document)
        if name not in PER_STEP or step is None:
            return {}
        if name == "mark_done":
            return {"result": {} if step.direction == "undo" else self.player.results.get(step.name, {})}
        if step.outcome in {"unknown", "acknowledged"}:
            return {"happened": False} if not await self.world.happened(step.effect_key or key) else None
        return {}

    async def decide(self, document: CaseDocument) -> None:
        """What has to be decided beside the row's own answer: by what the partner's ledger says."""
        step = _blocked(document)
        if step is None:
            await self.override("retry", None)
            return
        happened = await self.world.happened(step.effect_key or "")
        if step.outcome == "acknowledged" and not happened:  # it is owed, and nobody but the partner can end that
            await self.world.remind(step.effect_key or "")
            happened = 1
        if happened and step.outcome in {"unknown", "acknowledged"}:
            result = {} if step.direction == "undo" else self.player.results.get(step.name, {})
            await self.override("mark_done", _address(step), result=result)
        else:
            address = _address(step)
            offered = _action(document, "skip", address)
            # What a partner refuses again, it will always refuse: there was nothing left to do, and it is left out.
            name = "skip" if address in self.retried and offered.allowed else "retry"
            self.retried.add(address)
            await self.override(name, address, **({"happened": False} if step.outcome == "unknown" else {}))

    async def _plan(self, step: str) -> str:
        async with self.world.database.sessions() as session:
            plan = await queries.get_plan(session, self.world.catalogue, case_id=self.id, step=step, actor=OPERATORS)
        return plan.plan_hash

    # what they see

    async def see(self) -> CaseDocument:
        """The case document, as senior operators get it."""
        async with self.world.database.sessions() as session:
            return await queries.get_case(session, self.world.catalogue, case_id=self.id, actor=OPERATORS)

    async def glance(self) -> tuple[str, bool, datetime | None]:
        """Its condition, whether an operation is in flight, and when its next attempt is due: much cheaper than all."""
        async with self.world.database.sessions() as session:
            found = await session.execute(_GLANCE, {"case_id": self.id})
        condition, operation_id, next_attempt_at = found.one()
        return condition, operation_id is not None, next_attempt_at

    async def operation(self, operation_id: UUID) -> OperationDocument:
        """One operation, whole."""
        async with self.world.database.sessions() as session:
            return await queries.get_operation(
                session, self.world.catalogue, operation_id=operation_id, actor=OPERATORS
            )

    async def rest(self) -> CaseDocument:
        """The case once nothing goes on by itself any more. Raises Broken where it never comes to that."""
        give_up_at, overdue = asyncio.get_running_loop().time() + PATIENCE, 0
        while asyncio.get_running_loop().time() < give_up_at:
            stirred = self.world.clock.stirred[str(self.id)]
            stirred.clear()
            condition, in_flight, next_attempt_at = await self.glance()
            if not in_flight or condition == "blocked":
                return await self.see()
            left = next_attempt_at - self.world.clock.now() if next_attempt_at else LATER
            if condition in AT_WORK and next_attempt_at is None:  # what is taken back may wait for its attempt, too
                if self.world.clock.silent_for() > LOST_AFTER:
                    await self.world.start_anew(self.workflow, self.id)
                await _heard(stirred)
            elif left > timedelta(0):
                overdue = 0
                await self.world.clock.passes(max(left, SOON))
            elif overdue < TURNS:  # its activity is on the way: a leap would time it out
                overdue += 1
                await _heard(stirred)
            else:  # its timer was set late, or its run was lost
                overdue += 1
                if overdue > TURNS_LOST:
                    await self.world.start_anew(self.workflow, self.id)
                    overdue = 0
                await self.world.clock.passes(OVERDUE)
        document = await self.see()
        raise Broken(f"no rest after {PATIENCE:.0f} s: {document.condition_info.sentence}")

    async def settle(self) -> None:
        """What comes before the fault must go well. Raises Broken."""
        document = await self.rest()
        if document.condition == "blocked":
            raise Broken(f"without any fault: {document.condition_info.sentence}")
        await self.learn()

    async def check(self, document: CaseDocument, seen: Seen) -> None:
        """G5, and that it is no dead end. Raises Broken."""
        info = document.condition_info
        if document.operation is not None and not info.recovery_owner:
            raise Broken(f"nobody is named: {document.condition}, {info.sentence}")
        for step in document.operation.steps if document.operation else ():
            if step.state == "blocked" and not (step.recovery_owner and step.since):
                raise Broken(f"nobody is named for {step.name}")
        if document.condition == "blocked" and not any(
            action.allowed for action in document.actions if action.name in ANSWERS
        ):
            raise Broken(f"a dead end after {seen.fault}: operators can do nothing")

    async def learn(self) -> None:
        """Remember what partners answer when all goes well."""
        if self.process.steps.keys() <= self.player.results.keys():
            return
        for step in (await self.operation(self.operations[-1])).steps:
            if step.direction == "do" and step.outcome == "succeeded" and step.result is not None:
                self.player.results.setdefault(step.name, step.result)

    async def ledger(self) -> list[tuple[str, int]]:
        """Every effect of the case, and how often it happened. Raises Broken where one recorded as done did not."""
        found: list[tuple[str, int]] = []
        for operation_id in dict.fromkeys(self.operations):
            for step in (await self.operation(operation_id)).steps:
                if step.effect_key is None:
                    continue
                times = await self.world.happened(step.effect_key)
                if step.outcome == "succeeded" and step.state == "succeeded" and times == 0:
                    raise Broken(f"{step.name} is recorded as done, and the partner knows nothing of it")
                found.append((step.effect_key, times))
        return found


async def _heard(stirred: asyncio.Event) -> None:
    """Until one of the case's activities has ended; what no activity tells is seen a moment later."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LISTEN):
            await stirred.wait()


def _blocked(document: CaseDocument) -> StepDocument | None:
    steps = document.operation.steps if document.operation else []
    return next((step for step in steps if step.state == "blocked"), None)


def _address(step: StepDocument | None) -> str | None:
    if step is None:
        return None
    bare = step.name.removesuffix(":undo")
    return f"{bare}:undo" if step.direction == "undo" else bare


def _action(document: CaseDocument, name: str, step: str | None) -> ActionDocument:
    found = [action for action in document.actions if (action.kind, action.name) == ("override", name)]
    exact = [action for action in found if action.step == step] or found
    if not exact:
        raise Broken(f"{name} is missing from the actions")
    return exact[0]


def _example(model: type[Any]) -> dict[str, Any]:
    examples: list[dict[str, Any]] = model.model_json_schema().get("examples", [])
    return examples[0] if examples else {}


def _somebody(roles: frozenset[str]) -> Actor:
    return Actor(f"drill-{next(_numbers)}", roles)


def _envelope(actor: Actor) -> Envelope:
    return Envelope(actor=actor, idempotency_key=str(uuid4()), traceparent=continue_trace(None), if_match=None)
