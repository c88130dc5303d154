"""The effect protocol: reserve, then (outside any transaction) probe and act, then settle.

Three functions, each called in a transaction of its caller's: `open_step` and `reserve` share the first one,
`settle` has the second. All run under the case's lock; none talks to a partner. What an outcome makes of an effect
stands in `outcomes.py`.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import breaker
from caseward.cases.attached import of_ids
from caseward.cases.locked import LockedCase, address_of, case_pause, lock_case
from caseward.cases.operations import due_again, surely_nothing, void_effect
from caseward.cases.outcomes import (
    NOT_FOUND_YET,
    Settlement,
    block,
    error_of,
    exhaust,
    finish_retry,
    give_up_waiting,
    goes_on_without,
    hear_of_the_voided,
    land,
    not_yet,
    say,
)
from caseward.cases.pauses import Hold, ensure, hold_of, hold_up, holding, is_frozen, partner_key, process_key
from caseward.db.tables import Attempt, Effect, Operation, Pause, Subject
from caseward.messages import StepAnswer, StepCall
from caseward.partner import Offer
from caseward.process import ENGINEERING, Catalogue, Step
from caseward.situation import LEFT_OUT, DocumentView

LEASE_MARGIN = timedelta(seconds=2)  # from the last byte of the answer to the commit of its outcome
FROZEN_PAUSE = timedelta(seconds=30)  # between two looks at a wait that would be over if it did not stand still


class LeaseHeld(Exception):
    """Another attempt's lease lives; `remaining` says how long at most."""

    def __init__(self, remaining: timedelta) -> None:
        super().__init__(f"another attempt holds the lease for {remaining.total_seconds():.1f} s")
        self.remaining = remaining


@dataclass(frozen=True, kw_only=True)
class OpenStep:
    """A step that may go on: what its activity may know, read under the lock."""

    work: LockedCase
    operation: Operation
    owner: Operation
    """Whose step it is: that operation, or the one whose effect it settles or takes back."""
    step: Step[Any]
    effect: Effect | None
    opened_at: float
    """`time.monotonic()` before the lease could begin."""
    subject: dict[str, Any]
    standing: Mapping[str, dict[str, Any]]
    """By step: the newest result in this case that was not offset and is not to be."""
    original: dict[str, Any] | None
    """For a compensation: the result of the effect that it offsets."""
    holds: tuple[Hold, ...]
    """The pauses of the partner and of the process; neither can change before this transaction ends."""
    documents: tuple[DocumentView, ...] = ()
    """Those that the step's own operation was accepted over."""


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """The leave to make one attempt."""

    effect_key: str
    attempt: int
    send_before: float
    ask_first: bool
    """The last outcome is unknown: probe before anything is sent."""
    may_send: bool
    """False where only a probe may be made."""
    not_found_counts: bool
    """The partner's settling time is over, so that "not found" proves that nothing happened."""
    traceparent: str
    partner_failing: bool
    """The last thing known of the partner was a failure, so that an answer is news."""


# The pauses come with the subject: a round trip of their own would cost every step of every case.
_SUBJECT = (
    select(Subject.data, *Pause.__table__.c)
    .join(Pause, or_(Pause.key == bindparam("partner"), Pause.key == bindparam("process")))
    .where(Subject.case_id == bindparam("case_id"), Subject.revision == bindparam("revision"))
    .order_by(Pause.key)
    .with_for_update(read=True, of=Pause)
)


async def open_step(session: AsyncSession, catalogue: Catalogue, call: StepCall) -> OpenStep | StepAnswer:
    """Lock the case and look whether this step may go on; else answer what stands.

    Raises LeaseHeld where another attempt is under way.
    """
    opened_at = time.monotonic()
    work = await lock_case(session, catalogue, UUID(call.case_id))
    operation = work.operation
    if work.case.fence != call.fence or operation is None or str(operation.id) != call.operation_id:
        return StepAnswer("superseded", work.case.version, news=work.news())
    reuse: dict[str, str] = operation.plan["reuse"] if operation.plan else {}
    adopted = work.effects.get(reuse.get(address_of(call.step, call.item), ""))
    if adopted is not None and call.direction == "do" and not call.settle_only:
        return answer(work, adopted)
    effect = work.effects.get(call.effect_key)
    if effect is not None:
        standing = await _standing_answer(work, effect, call)
        if standing is not None:
            return standing
    elif call.settle_only:
        return StepAnswer("settled", work.case.version)  # never reserved: nothing to find out
    original, owner_id = None, effect.operation_id if effect else operation.id
    if call.direction == "undo":
        offset = work.effects[call.effect_key.removesuffix(":undo")]
        if not offset.standing:
            return StepAnswer("settled", work.case.version)
        original, owner_id = offset.result or {}, offset.operation_id
    step = work.process.steps.get(call.step)
    if step is None or not work.process.has_code_for(call.step, call.direction):
        return await _step_missing(work, operation, effect, call)
    # Whoever drives an effect, its request is the one that its own operation makes: with its subject and its instants.
    owner = operation if owner_id == operation.id else await session.get_one(Operation, owner_id)
    opened = await _opened(work, operation, owner, step, effect, opened_at=opened_at, original=original)
    return await _no_answer(work, effect, opened.holds, call) or opened


async def _opened(
    work: LockedCase,
    operation: Operation,
    owner: Operation,
    step: Step[Any],
    effect: Effect | None,
    *,
    opened_at: float,
    original: dict[str, Any] | None,
) -> OpenStep:
    subject, holds = await _subject_and_holds(work, step, owner)
    standing = [e for e in work.effects.values() if e.standing and e.settled_at and e.direction == "do"]
    latest = sorted((e for e in standing if e.decision not in LEFT_OUT), key=lambda e: str(e.settled_at))
    return OpenStep(
        work=work,
        operation=operation,
        owner=owner,
        step=step,
        effect=effect,
        opened_at=opened_at,
        subject=subject,
        standing={e.step: e.result or {} for e in latest},
        original=original,
        holds=holds,
        documents=await of_ids(work.session, owner.documents),
    )


async def reopen(work: LockedCase, effect: Effect) -> OpenStep:
    """What the body may know that reads a partner's later answer, whatever became of its effect meanwhile."""
    original = None
    if effect.of_effect is not None:
        offset = work.effects.get(effect.of_effect) or await work.session.get_one(Effect, effect.of_effect)
        work.effects.setdefault(offset.key, offset)
        original = offset.result or {}
    driver = await work.session.get_one(Operation, effect.driven_by)
    owner = await work.session.get_one(Operation, effect.operation_id)
    step = work.process.steps[effect.step]
    return await _opened(work, driver, owner, step, effect, opened_at=time.monotonic(), original=original)


async def _step_missing(work: LockedCase, operation: Operation, effect: Effect | None, call: StepCall) -> StepAnswer:
    """An operation of an older version's has a step that this version lacks: engineering mends it, or a person says."""
    if effect is None:
        offset = work.effects.get(call.effect_key.removesuffix(":undo"))
        partner = offset.partner if offset else "nobody"
        effect = _blank_effect(work, operation, call, partner=partner, owner=ENGINEERING)
    message = f"This version has no {call.step}{':undo' if call.direction == 'undo' else ''}."
    effect.error = {"class": None, "code": "step_missing", "message": message}
    _begin_operation(work, operation)
    return await _block_answer(work, effect, cause="step_missing", owner=ENGINEERING)


async def _subject_and_holds(
    work: LockedCase, step: Step[Any], owner: Operation
) -> tuple[dict[str, Any], tuple[Hold, ...]]:
    keys = {"partner": partner_key(step.partner), "process": process_key(work.process.name)}
    wanted = {"case_id": work.case.id, "revision": owner.subject_revision, **keys}
    rows = (await work.session.execute(_SUBJECT, wanted)).mappings().all()
    if len(rows) < len(keys):  # the first time that anybody asks for them
        await ensure(work.session, keys.values(), work.now)
        rows = (await work.session.execute(_SUBJECT, wanted)).mappings().all()
    return rows[0]["data"], tuple(hold_of(row) for row in rows)


async def _no_answer(
    work: LockedCase, effect: Effect | None, holds: Iterable[Hold], call: StepCall
) -> StepAnswer | None:
    """The partner had its time, was asked when it was over, and never answered; a frozen deadline does not pass."""
    if effect is None or effect.state != "waiting" or effect.answer_by is None or effect.answer_by > work.now:
        return None
    own = case_pause(work.case)
    if (own is not None and own.frozen_since is not None) or any(is_frozen(hold, work.case) for hold in holds):
        effect.next_attempt_at = work.now + FROZEN_PAUSE
        work.touch()
        return answer(work, effect, call)
    last = await work.session.get_one(Attempt, (effect.key, effect.attempt_count))
    if last.started_at < effect.answer_by:
        return None  # only its callback may have got lost: asking comes first, where there is a way to
    return await _never_answered(work, effect, call)


async def _standing_answer(work: LockedCase, effect: Effect, call: StepCall) -> StepAnswer | None:
    """The answer where nothing is to be done now; None where an attempt is due."""
    if effect.state == "settled":
        if effect.decided_by is not None:
            await _finish_helper(work, effect.decided_by)
        return answer(work, effect, call)
    if effect.state == "running":
        await lapse(work, effect)
    if call.settle_only and surely_nothing(effect):
        void_effect(work, effect)
        work.touch()
        return answer(work, effect, call)
    if effect.state == "blocked":
        return answer(work, effect, call)
    if effect.next_attempt_at is not None and effect.next_attempt_at > work.now:
        return answer(work, effect, call)
    return None


async def _never_answered(work: LockedCase, effect: Effect, call: StepCall) -> StepAnswer:
    """The time of a partner that acknowledged is over: what the step declares for when no attempt is left."""
    await give_up_waiting(work, effect, settle_only=call.settle_only)
    await finish_retry(work, effect)
    work.touch()
    if work.case.fence != call.fence:
        return StepAnswer("superseded", work.case.version, news=work.news())
    return answer(work, effect, call)


async def lapse(work: LockedCase, effect: Effect) -> None:
    """Close an attempt whose lease ended without an outcome: whoever made it is gone, and nobody knows how far it got.

    Raises LeaseHeld while the lease lives.
    """
    attempt = await work.session.get_one(Attempt, (effect.key, effect.attempt_count))
    if attempt.lease_until > work.now:
        raise LeaseHeld(attempt.lease_until - work.now)
    error = {"class": None, "code": "lease_lapsed", "message": "The worker went away in the middle."}
    work.end_attempt(effect, attempt, "unknown", error, at=attempt.lease_until)
    effect.state, effect.since, effect.next_attempt_at = "retrying", work.now, work.now
    effect.outcome = effect.outcome if effect.outcome == "acknowledged" else "unknown"
    effect.error, effect.maybe_sent_until, effect.ruled_out_by = error, attempt.lease_until, None
    say(work, effect, "effect.outcome_unknown", code="lease_lapsed", attempt=attempt.number)
    await finish_retry(work, effect)


async def reserve(
    opened: OpenStep, call: StepCall, offer: Offer, partner: str, request: dict[str, Any]
) -> Reservation | StepAnswer:
    """Write the attempt with its lease, or answer why there can't be one."""
    work, now = opened.work, opened.work.now
    effect = opened.effect or _new_effect(opened, call, partner)
    if effect.request is None:
        effect.request = request
    elif any(effect.request[name] != request[name] for name in ("call", "arguments")):
        return await _block_answer(work, effect, cause="invalid", owner=ENGINEERING)
    ruled_out = effect.ruled_out_by is not None
    asking = effect.outcome in {"unknown", "acknowledged"} and not (ruled_out and not offer.probe)
    # What a partner acknowledged it may well do only once; but whoever says `retry` wants it asked, one way or another.
    again = not asking or (offer.idempotent and (effect.outcome != "acknowledged" or effect.retry_by is not None))
    ask_first = asking and offer.probe
    if asking and not again and not ask_first:
        if effect.outcome == "acknowledged" and effect.answer_by is not None:  # only its callback can tell
            if effect.answer_by <= now:
                return await _never_answered(work, effect, call)
            effect.next_attempt_at = effect.answer_by
            await finish_retry(work, effect)
            work.touch()
            return answer(work, effect, call)
        if goes_on_without(effect, opened.step, settle_only=call.settle_only):
            await exhaust(work, effect, opened.step, "unknown", by_declaration=True)
            await finish_retry(work, effect)
            work.touch()
            return answer(work, effect, call)
        return await _block_answer(work, effect, cause="unknown", owner=effect.recovery_owner)
    compensating = call.settle_only or call.direction == "undo"
    pause = holding(work, opened.holds, effect.key, compensating=compensating)
    if pause is not None and not ask_first:  # whoever only asks begins nothing
        _begin_operation(work, opened.operation)
        hold_up(work, effect, pause)
        return answer(work, effect, call)
    lease = offer.deadline * (2 if ask_first else 1) + LEASE_MARGIN
    effect.attempt_count += 1
    effect.state, effect.since = "running", now
    effect.next_attempt_at = effect.cause = effect.paused_by = None
    work.session.add(
        Attempt(
            effect_key=effect.key,
            number=effect.attempt_count,
            operation_id=opened.operation.id,
            lease_until=now + lease,
            started_at=now,
            outcome=None,
            error=None,
            ended_at=None,
        )
    )
    counts = effect.maybe_sent_until is not None and effect.maybe_sent_until + offer.settling <= now
    _begin_operation(work, opened.operation)
    say(work, effect, "attempt.started", attempt=effect.attempt_count)
    work.touch()
    return Reservation(
        effect_key=effect.key,
        attempt=effect.attempt_count,
        send_before=opened.opened_at + lease.total_seconds(),
        ask_first=ask_first,
        may_send=pause is None and (again or (effect.outcome == "unknown" and not call.settle_only)),
        not_found_counts=counts or ruled_out,
        traceparent=opened.operation.traceparent,
        partner_failing=any(hold.failing or hold.state != "open" for hold in opened.holds),
    )


async def settle_unsent(opened: OpenStep, call: StepCall, settlement: Settlement) -> StepAnswer:
    """Settle a step whose activity decided without sending: not needed, or our own code failed."""
    work = opened.work
    effect = opened.effect or _new_effect(opened, call, opened.step.partner)
    _begin_operation(work, opened.operation)
    await finish_retry(work, effect)
    if settlement.outcome == "not_needed" and effect.outcome in {"unknown", "acknowledged"} and not effect.ruled_out_by:
        return await _block_answer(work, effect, cause="invalid", owner=ENGINEERING)  # it was sent, and may stand
    if settlement.outcome == "not_needed":
        effect.outcome, effect.state = "not_needed", "settled"
        effect.settled_at = effect.since = work.now
        effect.next_attempt_at = effect.error = None
        say(work, effect, "effect.not_needed", message=settlement.message)
    else:
        if effect.outcome is None:
            effect.outcome = settlement.outcome
        effect.error = error_of(settlement)
        owner = ENGINEERING if settlement.cause == "code_error" else effect.recovery_owner
        block(work, effect, cause=settlement.cause or "code_error", owner=owner)
    work.touch()
    return answer(work, effect, call)


def _begin_operation(work: LockedCase, operation: Operation) -> None:
    if operation.state == "accepted":
        operation.state, operation.started_at = "running", work.now


def _new_effect(opened: OpenStep, call: StepCall, partner: str) -> Effect:
    owner = opened.work.process.owner_of(opened.step)
    return _blank_effect(opened.work, opened.operation, call, partner=partner, owner=owner)


def _blank_effect(work: LockedCase, operation: Operation, call: StepCall, *, partner: str, owner: str) -> Effect:
    undoes = call.effect_key.removesuffix(":undo") if call.direction == "undo" else None
    effect = Effect(
        key=call.effect_key,
        case_id=work.case.id,
        operation_id=work.effects[undoes].operation_id if undoes else operation.id,
        driven_by=operation.id,
        step=call.step,
        item=call.item,
        direction=call.direction,
        of_effect=undoes,
        partner=partner,
        recovery_owner=owner,
        state="running",
        outcome=None,
        decision=None,
        decided_by=None,
        ruled_out_by=None,
        retry_by=None,
        cause=None,
        error=None,
        request=None,
        result=None,
        standing=False,
        offset_at=None,
        attempt_count=0,
        burst=0,
        next_attempt_at=None,
        maybe_sent_until=None,
        answer_by=None,
        since=work.now,
        reserved_at=work.now,
        settled_at=None,
        paused_by=None,
    )
    work.session.add(effect)
    work.effects[effect.key] = effect
    return effect


async def settle(
    session: AsyncSession,
    catalogue: Catalogue,
    call: StepCall,
    *,
    attempt_number: int,
    offer: Offer,
    settlement: Settlement,
    partner_failing: bool = False,
) -> StepAnswer:
    """Write an attempt's outcome and what follows from it. News only moves an effect forward.

    Called late (the lease lapsed, the case was taken over, somebody left the step out) it still keeps what it learnt.
    """
    work = await lock_case(session, catalogue, UUID(call.case_id))
    effect = work.effects.get(call.effect_key) or await session.get_one(Effect, call.effect_key)
    work.effects.setdefault(effect.key, effect)
    attempt = await session.get_one(Attempt, (call.effect_key, attempt_number))
    current = attempt.ended_at is None and effect.attempt_count == attempt_number
    pause = await _tell_breaker(work, effect, settlement, failing=partner_failing)
    if attempt.outcome in {None, "unknown"}:
        work.end_attempt(effect, attempt, settlement.outcome, error_of(settlement), at=attempt.ended_at or work.now)
    if settlement.outcome == "succeeded":
        await land(work, effect, offer, settlement)
    elif current and effect.state != "settled":
        superseded = call.direction == "do" and work.case.fence != call.fence
        settle_only = call.settle_only or superseded
        await not_yet(work, effect, offer, settlement, settle_only=settle_only, pause=pause)
        if superseded and effect.state != "settled":
            due_again(work, effect)  # whoever took the case over finds out
    else:
        hear_of_the_voided(work, effect, attempt_number, settlement)
    if current:
        await finish_retry(work, effect)
    work.touch()
    if work.case.fence != call.fence:
        return StepAnswer("superseded", work.case.version, news=work.news())
    if effect.state == "running":  # a later attempt has the lease, and its worker will tell
        delay = offer.deadline.total_seconds()
        return StepAnswer("retrying", work.case.version, delay=delay, news=work.news())
    return answer(work, effect, call)


async def _tell_breaker(work: LockedCase, effect: Effect, settlement: Settlement, *, failing: bool) -> Hold | None:
    """What the outcome says of the partner; the partner's pause, where that was worth looking at."""
    step = work.process.steps.get(effect.step)
    partner = step.partner if step else effect.partner
    if settlement.cause == "code_error" or settlement.code == "lease_too_short":
        return None  # our own fault
    answered = settlement.outcome in {"succeeded", "acknowledged"} or settlement.code == NOT_FOUND_YET
    answered = answered or settlement.disproved or settlement.error_class in {"rejected", "unauthorized", "invalid"}
    if answered and not failing:
        return None
    return await breaker.hear(
        work.session, partner_key(partner), effect.key, now=work.now, code=None if answered else settlement.code
    )


async def _block_answer(work: LockedCase, effect: Effect, *, cause: str, owner: str) -> StepAnswer:
    block(work, effect, cause=cause, owner=owner)
    if effect.error is None or cause == "invalid":
        message = "The request has changed since it was first sent." if cause == "invalid" else cause
        effect.error = {"class": "invalid" if cause == "invalid" else None, "code": cause, "message": message}
    await finish_retry(work, effect)
    work.touch()
    return answer(work, effect)


async def _finish_helper(work: LockedCase, operation_id: UUID) -> None:
    helper = await work.session.get_one(Operation, operation_id)
    if helper.finished_at is None:
        work.finish_helper(helper)
        work.touch()


def answer(work: LockedCase, effect: Effect, call: StepCall | None = None) -> StepAnswer:
    """What stands, for the workflow."""
    delay = None
    if effect.state in {"retrying", "waiting"} and effect.next_attempt_at is not None:
        delay = max(0.0, (effect.next_attempt_at - work.now).total_seconds())
    happened = effect.standing or effect.decision == "marked_done"
    if call is not None and call.settle_only:  # somebody may have looked, and left it standing
        happened = happened and work.operation is not None and effect.key in work.operation.offsets
    elif effect.decision in LEFT_OUT and effect.direction == "do":
        happened = False  # the story went on without it, and goes on so when it is told again
    if effect.state == "running":
        message = "a running effect has no answer"
        raise AssertionError(message)
    return StepAnswer(
        state=_ANSWERS[effect.state],
        version=work.case.version,
        happened=happened,
        result=effect.result if happened else None,
        delay=delay,
        news=work.news(),
    )


_ANSWERS: dict[str, Literal["settled", "retrying", "waiting", "paused", "blocked"]] = {
    "settled": "settled",
    "retrying": "retrying",
    "waiting": "waiting",
    "paused": "paused",
    "blocked": "blocked",
}


async def attempts_of(session: AsyncSession, effect_keys: list[str]) -> list[Attempt]:
    """Every attempt at these effects, in order."""
    found = await session.scalars(
        select(Attempt).where(Attempt.effect_key.in_(effect_keys)).order_by(Attempt.effect_key, Attempt.number)
    )
    return list(found)
