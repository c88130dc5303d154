"""The wrapper of every effect: reserve, probe, act, settle around one send in an activity's body.

An activity's body is a pure function of its `Call` around at most one `call.send`. It runs up to that line inside the
reserving transaction, so that the request is stored before anything is sent, and goes on when the answer is there.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, get_type_hints
from uuid import UUID

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from caseward import messages
from caseward.cases import callbacks, deadlines, effects, operations, outcomes, taking_back
from caseward.cases.admission import admit_override
from caseward.cases.effects import LeaseHeld, OpenStep, Reservation
from caseward.cases.locked import LockedCase, effect_view, lock_case
from caseward.cases.outcomes import Settlement
from caseward.db.session import Database
from caseward.db.tables import Callback, Effect
from caseward.errors import (
    DeclarationInvalid,
    LeaseTooShort,
    PartnerAcknowledged,
    PartnerAnswer,
    PartnerFailed,
)
from caseward.failpoints import failpoint
from caseward.messages import (
    AdmitAnswer,
    AdmitCall,
    BlockCall,
    CaseRef,
    DeadlineCall,
    FinishAnswer,
    FinishCall,
    LoadAnswer,
    News,
    StepAnswer,
    StepCall,
    TakeBackAnswer,
    TakeBackCall,
    activity_name,
)
from caseward.partner import OFFER, Gateway, Offer, Sending
from caseward.process import IMPOSSIBLE, Catalogue, Process, Step
from caseward.situation import DocumentView

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", bound=BaseModel)

HEARTBEAT_EVERY = timedelta(seconds=1)
# How long the only one who knows a partner's answer keeps trying to write it down.
SETTLE_FOR = timedelta(seconds=30)
MISSING_PAUSE = timedelta(seconds=5)
SETTLE_PAUSE = timedelta(seconds=0.2)

_DECLARED = "caseward_step"


@dataclass(frozen=True)
class NotNeeded:
    """The step has nothing to do in this case, and says why; it stays drawn."""

    reason: str


class CallbackUnread(Exception):
    """Our code could not read what a partner called back; it stays stored."""


@dataclass(frozen=True)
class _Asked:
    """What the body wants sent."""

    method: Callable[..., Awaitable[Any]]
    arguments: dict[str, Any]


class Call(Generic[S]):
    """What an activity's body may know of its case, and its one way to the partner."""

    def __init__(self, opened: OpenStep, call: StepCall, subject: S) -> None:
        self.subject: S = subject
        self.case_id: UUID = UUID(call.case_id)
        self.business_key: str = opened.work.case.business_key
        self.item: str | None = call.item
        self.documents: tuple[DocumentView, ...] = opened.documents
        """Those that the operation was accepted over."""
        self.accepted_at: datetime = opened.owner.accepted_at
        # What the first attempt saw is what all attempts see, or the same request could not be made again.
        request: dict[str, Any] = (opened.effect.request or {}) if opened.effect else {}
        self._standing: Mapping[str, dict[str, Any] | None] = {**opened.standing, **request.get("standing", {})}
        self.looked_at: dict[str, dict[str, Any] | None] = {}
        """The standing results that the body used, by step."""
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[_Asked] = loop.create_future()
        self.answer: asyncio.Future[Any] = loop.create_future()

    def standing(self, step: Step[R]) -> R | None:
        """The newest result of a step in this case that was not undone, as this step's first attempt saw it."""
        found = self.looked_at[step.name] = self._standing.get(step.name)
        return None if found is None else step.result.model_validate(found)

    @property
    def document(self) -> DocumentView:
        """The one that this step is about. Raises LookupError where its item is no document of the operation."""
        found = next((document for document in self.documents if str(document.id) == self.item), None)
        if found is None:
            message = f"{self.item} is no document of this operation"
            raise LookupError(message)
        return found

    async def send(
        self, method: Callable[Concatenate[Sending, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make the step's one outside change, under its effect key; at most once in a body, keywords only."""
        if args or self.asked.done():
            message = "an activity's body sends at most once, with keyword arguments"
            raise TypeError(message)
        self.asked.set_result(_Asked(cast("Callable[..., Awaitable[Any]]", method), dict(kwargs)))
        return await self.answer


Body = Callable[[Any, Call[Any]], Awaitable[Any]]


def effect(step: Step[R]) -> Callable[[Callable[[Any, Call[Any]], Awaitable[R | NotNeeded]]], Body]:
    """Declare a method as the activity of a step."""
    return _declare(step.name)


def undo(step: Step[R]) -> Callable[[Callable[[Any, Call[Any], R], Awaitable[None]]], Any]:
    """Declare a method as the compensation of a step; it gets the result that it offsets."""
    return _declare(step.name + ":undo")


def _declare(address: str) -> Callable[[Any], Any]:
    def mark(method: Any) -> Any:
        setattr(method, _DECLARED, address)
        return method

    return mark


class EffectRunner:
    """Runs one step's activity by the effect protocol."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._database = database
        self._catalogue = catalogue
        self._log = structlog.get_logger("effect")
        self._bodies: dict[str, Callable[..., Awaitable[Any]]] = {}

    def learn(self, process: Process, address: str, body: Callable[..., Awaitable[Any]]) -> None:
        """Know a step's body, for what its partner calls back."""
        self._bodies[activity_name(process.name, address)] = body

    async def hear(self, case_id: UUID, *, partner: str, event_id: str) -> None:
        """Take in a stored callback, whatever became of its effect; once is enough, twice changes nothing.

        Raises LeaseHeld where an attempt under way comes first, CallbackUnread where it has to be looked at.
        """
        async with self._database.transaction() as session:
            work = await lock_case(session, self._catalogue, case_id)
            callback = await callbacks.find(session, partner=partner, event_id=event_id)
            if callback.used_at is not None:
                return
            key = callback.effect_key
            effect = work.effects.get(key) or await session.get_one(Effect, key)
            work.effects.setdefault(key, effect)
            name = activity_name(work.process.name, effect_view(effect).address)
            try:
                await self._take_in(work, effect, callback, self._bodies.get(name))
            except CallbackUnread as fault:
                if effect.state in {"settled", "running"}:
                    raise  # nobody waits for it now: the outbox tries again, and parks it in plain sight
                await outcomes.block_unread(work, effect, str(fault))
            work.touch()
            if work.operation is not None:
                work.nudge(effect)

    async def _take_in(
        self, work: LockedCase, effect: Effect, callback: Callback, body: Callable[..., Awaitable[Any]] | None
    ) -> None:
        """Have the body read the answer as if `send` had brought it. Raises CallbackUnread, LeaseHeld."""
        if effect.step not in work.process.steps:
            message = f"This version has no step {effect.step}."
            raise CallbackUnread(message)
        opened = await effects.reopen(work, effect)
        call = StepCall(
            *(work.process.name, str(work.case.id), str(opened.operation.id), work.case.fence, effect.step),
            effect_key=effect.key,
            item=effect.item,
            direction="undo" if effect.direction == "undo" else "do",
        )
        task: asyncio.Task[Any] | None = None
        try:
            if body is None:
                raise CallbackUnread("This version has no activity for the step.")  # noqa: TRY301 - one way to say so
            exchange = Call(opened, call, work.process.subject.model_validate(opened.subject))
            task = asyncio.ensure_future(_begin(body, exchange, opened))
            await asyncio.wait({task, exchange.asked}, return_when=asyncio.FIRST_COMPLETED)
            if not exchange.asked.done():
                raise CallbackUnread("The step's activity sends nothing now.")  # noqa: TRY301 - one way to say so
            asked = exchange.asked.result()
            _, offer = _gateway(asked.method)
            if callback.call not in {None, offer.call}:
                raise CallbackUnread(f"It is about {offer.call}, not about {callback.call}.")  # noqa: TRY301 - as above
            if callback.outcome == "failed":
                said = _refused(callback)
            else:
                exchange.answer.set_result(_read(asked.method, callback.answer))
                said = _result(await task, opened.step, call)
        except CallbackUnread:
            raise
        except Exception as fault:
            self._log.exception("callback_unread", effect_key=effect.key)
            raise CallbackUnread(f"Our code could not read it ({type(fault).__name__}).") from fault
        finally:
            if task is not None and not task.done():
                task.cancel()
        if said.outcome not in {"succeeded", "failed"} or said.cause is not None:
            raise CallbackUnread(said.message)
        await callbacks.take_in(work, effect, callback, offer, said)

    async def _take_in_all(
        self, session: AsyncSession, opened: OpenStep, call: StepCall, body: Callable[..., Awaitable[Any]]
    ) -> StepAnswer | None:
        """What the partner called back meanwhile, in place of another attempt; None where it said nothing."""
        if opened.effect is None:
            return None
        found = await callbacks.waiting_for(session, opened.effect.key)
        for callback in found:
            try:
                await self._take_in(opened.work, opened.effect, callback, body)
            except CallbackUnread as fault:
                await outcomes.block_unread(opened.work, opened.effect, str(fault))
                break
        if not found:
            return None
        opened.work.touch()
        return effects.answer(opened.work, opened.effect, call)

    async def run(self, process: Process, body: Callable[..., Awaitable[Any]], call: StepCall) -> StepAnswer:
        """Reserve, act, settle; or answer what stands already. Raises only where our own infrastructure fails."""
        task: asyncio.Task[Any] | None = None
        try:
            async with self._database.transaction() as session:
                opened = await effects.open_step(session, self._catalogue, call)
                if isinstance(opened, StepAnswer):
                    return opened
                heard = await self._take_in_all(session, opened, call, body)
                if heard is not None:
                    return heard
                try:
                    exchange = Call(opened, call, process.subject.model_validate(opened.subject))
                except ValidationError as fault:  # the declaration became stricter than what it once accepted
                    return await effects.settle_unsent(opened, call, _unfit(fault))
                task = asyncio.ensure_future(_begin(body, exchange, opened))
                await asyncio.wait({task, exchange.asked}, return_when=asyncio.FIRST_COMPLETED)
                if not exchange.asked.done():
                    return await effects.settle_unsent(opened, call, await _unsent(task, opened.step))
                asked = exchange.asked.result()
                gateway, offer = _gateway(asked.method)
                request = {"call": offer.call, "arguments": to_jsonable_python(asked.arguments)}
                if exchange.looked_at:
                    request["standing"] = exchange.looked_at
                reservation = await effects.reserve(opened, call, offer, gateway.name, request)
                if isinstance(reservation, StepAnswer):
                    return reservation
            await failpoint("effect.reserved", call.case_id)
            settlement = await self._act(task, exchange, asked, reservation, opened.step, call)
        finally:
            if task is not None and not task.done():
                task.cancel()
        await failpoint("effect.acted", call.case_id)
        answer = await self._settle(call, reservation, offer, settlement)
        await failpoint("effect.settled", call.case_id)
        return answer

    async def _act(
        self,
        task: asyncio.Task[Any],
        exchange: Call[Any],
        asked: _Asked,
        reservation: Reservation,
        step: Step[Any],
        call: StepCall,
    ) -> Settlement:
        gateway, offer = _gateway(asked.method)
        sending = Sending(
            key=reservation.effect_key,
            traceparent=reservation.traceparent,
            deadline=offer.deadline,
            send_before=reservation.send_before,
        )
        probing, disproved = reservation.ask_first, False
        try:
            found = await gateway.probe(sending, offer.call) if probing else None
            if found is not None:
                answer = _read(asked.method, found)
            elif probing and not reservation.not_found_counts and not (offer.idempotent and reservation.may_send):
                message = "The partner knows nothing of it yet; the request may still be on its way."
                return Settlement(outcome="unknown", code=outcomes.NOT_FOUND_YET, message=message, sent=False)
            elif not reservation.may_send:
                message = "The partner knows nothing of it."
                return Settlement(
                    outcome="failed", error_class="transient", code="not_found", message=message, disproved=True
                )
            else:
                disproved = probing and reservation.not_found_counts
                probing = False
                answer = await asked.method(sending, **asked.arguments)
        except PartnerAnswer as said:
            settlement = _settlement(said, probing=probing)
            return replace(settlement, disproved=True) if disproved else settlement
        except Exception as fault:  # noqa: BLE001 - a gateway that raises is a fault of ours after an unknown outcome
            self._log.exception("gateway_failed", effect_key=reservation.effect_key)
            return _code_error(fault)
        exchange.answer.set_result(answer)
        try:
            result = await task
        except Exception as fault:  # noqa: BLE001 - the partner did it, our own translation failed
            self._log.exception("activity_failed", effect_key=reservation.effect_key)
            return _code_error(fault)
        return _result(result, step, call)

    async def _settle(
        self, call: StepCall, reservation: Reservation, offer: Offer, settlement: Settlement
    ) -> StepAnswer:
        give_up_at = asyncio.get_running_loop().time() + SETTLE_FOR.total_seconds()
        while True:
            try:
                async with self._database.transaction() as session:
                    return await effects.settle(
                        session,
                        self._catalogue,
                        call,
                        attempt_number=reservation.attempt,
                        offer=offer,
                        settlement=settlement,
                        partner_failing=reservation.partner_failing,
                    )
            except (DBAPIError, TimeoutError) as fault:
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
                self._log.warning("settle_again", effect_key=reservation.effect_key, error=type(fault).__name__)
                await asyncio.sleep(SETTLE_PAUSE.total_seconds())


async def _begin(body: Callable[..., Awaitable[Any]], exchange: Call[Any], opened: OpenStep) -> Any:
    if opened.original is None:
        return await body(exchange)
    return await body(exchange, opened.step.result.model_validate(opened.original))


def _read(method: Callable[..., Awaitable[Any]], answer: Mapping[str, Any] | None) -> Any:
    """The partner's answer, which came another way, as the gateway's method would return it."""
    return TypeAdapter(get_type_hints(method)["return"]).validate_python(answer)


def _result(result: Any, step: Step[Any], call: StepCall) -> Settlement:
    if call.direction == "undo":
        return Settlement(outcome="succeeded", result={})
    if not isinstance(result, step.result):
        return _code_error(TypeError(f"the activity answered {type(result).__name__}"))
    return Settlement(outcome="succeeded", result=to_jsonable_python(result))


def _refused(callback: Callback) -> Settlement:
    """The partner had taken it, and says no after all."""
    error = callback.error or {}
    return Settlement(
        outcome="failed",
        error_class="rejected",
        code=str(error.get("code") or "failed"),
        message=str(error.get("message") or "The partner did not do it after all."),
        disproved=True,
    )


async def _unsent(task: asyncio.Task[Any], step: Step[Any]) -> Settlement:
    try:
        result = await task
    except PartnerFailed as answer:
        return Settlement(
            outcome="failed",
            error_class=answer.error_class,
            code=answer.code,
            message=answer.message,
            cause="no_compensation" if step.undo is IMPOSSIBLE else answer.error_class,
        )
    except Exception as fault:  # noqa: BLE001 - a body that raises is a fault of ours, told to engineering
        structlog.get_logger("effect").exception("activity_failed", step=step.name)
        return Settlement(outcome="failed", code=type(fault).__name__, message="Our code raised.", cause="code_error")
    if isinstance(result, NotNeeded) or result is None:
        reason = result.reason if isinstance(result, NotNeeded) else "there is nothing to take back"
        return Settlement(outcome="not_needed", message=reason)
    return Settlement(outcome="failed", code="no_send", message="The activity sent nothing.", cause="code_error")


def _unfit(fault: ValidationError) -> Settlement:
    fields = ", ".join(".".join(str(part) for part in error["loc"]) for error in fault.errors(include_input=False))
    message = f"The stored subject does not fit its declaration: {fields}."
    return Settlement(outcome="failed", code="subject_unfit", message=message[:500], cause="code_error")


def _settlement(said: PartnerAnswer, *, probing: bool) -> Settlement:
    if isinstance(said, PartnerAcknowledged):
        return Settlement(outcome="acknowledged", code=said.code, message=said.message)
    if probing and isinstance(said, PartnerFailed) and said.error_class == "rejected":
        return replace(outcomes.of_failure(said), disproved=True)  # it had taken the request, and then refused it
    if probing:  # asking failed: what we want to know stays unknown
        return Settlement(outcome="unknown", code=said.code, message=said.message, sent=False)
    if isinstance(said, LeaseTooShort):
        return Settlement(outcome="failed", error_class="transient", code=said.code, message=said.message, sent=False)
    if isinstance(said, PartnerFailed):
        return outcomes.of_failure(said)
    return Settlement(outcome="unknown", code=said.code, message=said.message)


def _code_error(fault: Exception) -> Settlement:
    return Settlement(
        outcome="unknown",
        code=type(fault).__name__,
        message="Our code failed after the request may have been sent.",
        cause="code_error",
    )


def _gateway(method: Callable[..., Awaitable[Any]]) -> tuple[Gateway, Offer]:
    offer = getattr(method, OFFER, None)
    gateway = getattr(method, "__self__", None)
    if not isinstance(offer, Offer) or gateway is None:
        message = f"{method!r} is not a gateway's method declared with `offers`"
        raise TypeError(message)
    return gateway, offer


def has_activities(steps: type[Any]) -> bool:
    """Some of its methods are declared with `effect` or `undo`."""
    return any(hasattr(method, _DECLARED) for method in vars(steps).values())


def step_activities(
    process: Process, steps: object, runner: EffectRunner
) -> list[Callable[[StepCall], Awaitable[StepAnswer]]]:
    """The Temporal activities of a process, from the methods of `steps` that are declared with `effect` and `undo`.

    Raises DeclarationInvalid where a step or a compensation has none, or one has no step.
    """
    bodies: dict[str, Callable[..., Awaitable[Any]]] = {
        getattr(method, _DECLARED): method
        for _, method in inspect.getmembers(steps, inspect.ismethod)
        if hasattr(method, _DECLARED)
    }
    wanted = {step.name for step in process.steps.values()}
    wanted |= {step.name + ":undo" for step in process.steps.values() if step.compensable}
    found = [f"{process.name}: step {name} has no activity" for name in sorted(wanted - set(bodies))]
    found += [f"{process.name}: the activity of {name} has no step" for name in sorted(set(bodies) - wanted)]
    found += list(_result_faults(process, bodies))
    if found:
        raise DeclarationInvalid(found)
    for step in process.steps.values():
        if step.undo is IMPOSSIBLE:
            bodies[step.name + ":undo"] = _no_compensation
    for address, body in bodies.items():
        runner.learn(process, address, body)
    return [_as_activity(process, address, body, runner) for address, body in bodies.items()]


def _result_faults(process: Process, bodies: Mapping[str, Callable[..., Awaitable[Any]]]) -> Iterable[str]:
    for step in process.steps.values():
        body = bodies.get(step.name)
        returned = get_type_hints(body).get("return") if body else None
        accepted = (step.result, step.result | NotNeeded)
        if body and returned not in accepted:
            yield f"{process.name}: the activity of {step.name} returns {returned}, not {step.result.__name__}"


async def _no_compensation(call: Call[Any], _result: Any) -> None:
    raise PartnerFailed("rejected", "no_compensation", f"Nothing can offset this in case {call.business_key}.")


def _as_activity(
    process: Process, address: str, body: Callable[..., Awaitable[Any]], runner: EffectRunner
) -> Callable[[StepCall], Awaitable[StepAnswer]]:
    @activity.defn(name=activity_name(process.name, address))
    async def run_step(call: StepCall) -> StepAnswer:
        with lease_respected():
            return await uncancelled(runner.run(process, body, call))

    return run_step


@contextmanager
def lease_respected() -> Generator[None]:
    """Come back when another attempt's lease is over, which counts as no attempt."""
    try:
        yield
    except LeaseHeld as held:
        raise ApplicationError(
            str(held),
            type="LeaseHeld",
            next_retry_delay=held.remaining + timedelta(milliseconds=50),
            category=ApplicationErrorCategory.BENIGN,
        ) from None


async def uncancelled(work: Awaitable[T]) -> T:
    """Finish what was begun, though the activity be cancelled: an outcome is worth more than a quick end.

    Every call is bounded by its gateway's deadline, so this is, too. Heartbeats go on meanwhile.
    """
    task = asyncio.ensure_future(work)
    beating = asyncio.ensure_future(_heartbeat())
    try:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(task)
        return task.result()
    finally:
        beating.cancel()


async def _heartbeat() -> None:
    while True:  # the start counts as the first beat, and most are over before the second
        await asyncio.sleep(HEARTBEAT_EVERY.total_seconds())
        activity.heartbeat()


def engine_activities(
    database: Database, catalogue: Catalogue, *, signal_overrides: frozenset[str]
) -> list[Callable[..., Awaitable[Any]]]:
    """The activities that every workflow needs, each one transaction."""

    @activity.defn(name=messages.LOAD)
    async def load(ref: CaseRef) -> LoadAnswer:
        async with database.transaction() as session:
            return await operations.load(session, catalogue, UUID(ref.case_id))

    @activity.defn(name=messages.FINISH)
    async def finish(call: FinishCall) -> FinishAnswer:
        async with database.transaction() as session:
            answer = await operations.finish(session, catalogue, call)
        await failpoint("operation.finished", call.case_id)
        return answer

    @activity.defn(name=messages.TAKE_BACK)
    async def take_back(call: TakeBackCall) -> TakeBackAnswer:
        async with database.transaction() as session:
            return await taking_back.take_back(session, catalogue, call)

    @activity.defn(name=messages.PASS_DEADLINE)
    async def pass_deadline(call: DeadlineCall) -> News:
        async with database.transaction() as session:
            return await deadlines.pass_deadline(session, catalogue, call)

    @activity.defn(name=messages.BLOCK)
    async def block(call: BlockCall) -> News:
        async with database.transaction() as session:
            return await operations.block_operation(session, catalogue, call)

    @activity.defn(name=messages.ADMIT)
    async def admit(call: AdmitCall) -> AdmitAnswer:
        return await admit_override(database, catalogue, call, allowed=signal_overrides)

    @activity.defn(name=messages.STEP_MISSING)
    async def step_missing(call: StepCall) -> StepAnswer:
        async with database.transaction() as session:
            with lease_respected():
                answer = await effects.open_step(session, catalogue, call)
        # Another version's worker took this, one that has the step: the next attempt is the workflow's.
        return answer if isinstance(answer, StepAnswer) else StepAnswer("retrying", delay=MISSING_PAUSE.total_seconds())

    return [load, finish, take_back, pass_deadline, block, admit, step_missing]
