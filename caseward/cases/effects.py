"""The effect protocol: reserve, then (outside any transaction) probe and act, then settle.

Three functions, each called in a transaction of its caller's: `open_step` and `reserve` share the first one,
`settle` has the second. All run under the case's lock; none talks to a partner.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from caseward.cases import breaker
from caseward.cases.attached import of_ids, tell_verdict
from caseward.cases.locked import LockedCase, address_of, case_pause, is_questioned, lock_case, story_of
from caseward.cases.operations import (
    Request,
    accept_undo,
    action_title,
    due_again,
    open_compensation,
    open_question,
    surely_nothing,
    void_effect,
)
from caseward.cases.pauses import Hold, ensure, hold_of, hold_up, holding, is_frozen, partner_key, process_key
from caseward.db.tables import Attempt, Effect, Operation, Pause, Subject
from caseward.entries import sentence
from caseward.errors import PartnerFailed
from caseward.messages import StepAnswer, StepCall
from caseward.offsets import needs_offset
from caseward.partner import Offer
from caseward.process import ENGINEERING, NONE_NEEDED, Catalogue, Step
from caseward.situation import LEFT_OUT, SYSTEM, DocumentView, Outcome, effect_title

LEASE_MARGIN = timedelta(seconds=2)  # from the last byte of the answer to the commit of its outcome
NOT_FOUND_YET = "not_found_yet"  # the partner knows nothing of the key, which proves nothing so soon
FROZEN_PAUSE = timedelta(seconds=30)  # between two looks at a wait that would be over if it did not stand still
POLL_EVERY = timedelta(seconds=5)  # until a partner that acknowledged is asked again, where it can be
POLL_SHARE = 10  # or once it has taken a tenth longer, whichever is later: an hour means some 50 questions, a day 80


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


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How an attempt ended."""

    outcome: Outcome
    result: dict[str, Any] | None = None
    error_class: str | None = None
    code: str = ""
    message: str = ""
    retry_after: timedelta | None = None
    cause: str | None = None
    """Blocks at once, for this cause."""
    sent: bool = True
    """A request may have left us in this attempt."""
    disproved: bool = False
    """The partner said for good that nothing of the attempts before had happened."""


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
    await _give_up_waiting(work, effect, settle_only=call.settle_only)
    await finish_retry(work, effect)
    work.touch()
    if work.case.fence != call.fence:
        return StepAnswer("superseded", work.case.version, news=work.news())
    return answer(work, effect, call)


async def _give_up_waiting(work: LockedCase, effect: Effect, *, settle_only: bool) -> None:
    effect.error = {"class": None, "code": "no_answer", "message": "The partner took it and never answered."}
    by_declaration = not settle_only and effect.direction == "do"
    await _exhaust(work, effect, work.process.steps.get(effect.step), "no_answer", by_declaration=by_declaration)


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
    _say(work, effect, "effect.outcome_unknown", code="lease_lapsed", attempt=attempt.number)
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
        if _goes_on_without(effect, opened.step, settle_only=call.settle_only):
            await _exhaust(work, effect, opened.step, "unknown", by_declaration=True)
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
    _say(work, effect, "attempt.started", attempt=effect.attempt_count)
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
        _say(work, effect, "effect.not_needed", message=settlement.message)
    else:
        if effect.outcome is None:
            effect.outcome = settlement.outcome
        effect.error = _error(settlement)
        owner = ENGINEERING if settlement.cause == "code_error" else effect.recovery_owner
        _block(work, effect, cause=settlement.cause or "code_error", owner=owner)
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
        work.end_attempt(effect, attempt, settlement.outcome, _error(settlement), at=attempt.ended_at or work.now)
    if settlement.outcome == "succeeded":
        await land(work, effect, offer, settlement)
    elif current and effect.state != "settled":
        superseded = call.direction == "do" and work.case.fence != call.fence
        settle_only = call.settle_only or superseded
        await not_yet(work, effect, offer, settlement, settle_only=settle_only, pause=pause)
        if superseded and effect.state != "settled":
            due_again(work, effect)  # whoever took the case over finds out
    else:
        _hear_of_the_voided(work, effect, attempt_number, settlement)
    if current:
        await finish_retry(work, effect)
    work.touch()
    if work.case.fence != call.fence:
        return StepAnswer("superseded", work.case.version, news=work.news())
    if effect.state == "running":  # a later attempt has the lease, and its worker will tell
        delay = offer.deadline.total_seconds()
        return StepAnswer("retrying", work.case.version, delay=delay, news=work.news())
    return answer(work, effect, call)


def _next_poll(work: LockedCase, effect: Effect) -> datetime:
    """When the partner that acknowledged is asked again: the longer it takes, the more rarely."""
    step = work.process.steps.get(effect.step)
    if step is None or effect.answer_by is None:
        return work.now + POLL_EVERY
    taken = work.now - (effect.answer_by - step.answer_within)
    return min(work.now + max(POLL_EVERY, taken / POLL_SHARE), effect.answer_by)


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


def _hear_of_the_voided(work: LockedCase, effect: Effect, attempt_number: int, settlement: Settlement) -> None:
    """The attempt that was under way when the case was taken over did nothing after all."""
    left_open = effect.decision == "voided" and effect.outcome == "unknown"
    # Only of a first attempt it is sure that none before it did it.
    if left_open and settlement.outcome == "failed" and effect.attempt_count == attempt_number == 1:
        effect.outcome, effect.error = "failed", _error(settlement)
        _say(work, effect, "effect.failed", code=settlement.code, error_class=settlement.error_class or "")


async def land(work: LockedCase, effect: Effect, offer: Offer, settlement: Settlement) -> None:
    """Success is reported: by a reply or by a callback, in time or late, for the first time or again."""
    if effect.outcome != "succeeded":
        await _succeed(work, effect, settlement)
    elif effect.result != settlement.result and not offer.idempotent and effect.decision != "marked_done":
        await _ask_owner(work, effect, "happened_twice", result=settlement.result)


async def contradict(work: LockedCase, effect: Effect, settlement: Settlement) -> None:
    """The partner says that it did not do what it said it did. The outcome stands; people have to look."""
    await _ask_owner(work, effect, "contradicted", code=settlement.code, message=settlement.message)


def refused_late(work: LockedCase, effect: Effect, settlement: Settlement) -> None:
    """Of what was given up while nobody knew, it is known now that it did not happen."""
    if effect.outcome in {"unknown", "acknowledged"}:
        effect.outcome, effect.error = "failed", _error(settlement)
        _say(work, effect, "effect.failed", code=settlement.code, error_class=settlement.error_class or "")


def unproved(settlement: Settlement) -> Settlement:
    """A refusal that says nothing of other requests under the same key."""
    return replace(settlement, disproved=False)


async def _ask_owner(work: LockedCase, effect: Effect, cause: str, **told: Any) -> None:
    declared = work.process.steps.get(effect.step)
    owner = work.process.owner_of(declared) if declared else ENGINEERING
    _say(work, effect, f"effect.{cause}", recovery_owner=owner, **told)
    if is_questioned(effect) or effect.direction == "undo" or (declared and declared.undo is NONE_NEEDED):
        return  # asked already; or nothing that anybody would want to take back
    _block(work, effect, cause=cause, owner=owner)
    message = {
        "happened_twice": "It succeeded twice, with different answers. The timeline has both.",
        "contradicted": "The partner reported success, and later a failure.",
    }[cause]
    effect.error = {"class": None, "code": cause, "message": message}
    await open_question(work, effect)


def _left_standing(work: LockedCase, effect: Effect, operation: Operation) -> None:
    """Whoever had to look has looked: what is known of it stays as it is."""
    effect.state, effect.decided_by, effect.cause, effect.error = "settled", operation.id, None, None
    effect.since = work.now
    _say(work, effect, "effect.left_standing")


async def _succeed(work: LockedCase, effect: Effect, settlement: Settlement) -> None:
    late = effect.state == "settled" and (effect.decision in LEFT_OUT or effect.outcome == "not_needed")
    effect.outcome, effect.error = "succeeded", None
    if effect.decision == "marked_done":
        return  # the person's result stands; the outcome stands beside it
    effect.result = settlement.result
    effect.settled_at = effect.settled_at or work.now
    effect.next_attempt_at = effect.cause = effect.answer_by = effect.paused_by = None
    if effect.state != "settled":
        effect.state, effect.since = "settled", work.now
    _say(work, effect, "effect.landed_late" if late else "effect.succeeded", result=settlement.result)
    await tell_verdict(work, effect)
    if effect.direction == "undo":
        _mark_offset(work, effect)
        return
    effect.standing = True
    if late and needs_offset(work.process, effect):
        await open_compensation(work, effect)


def _mark_offset(work: LockedCase, compensation: Effect) -> None:
    original = work.effects[compensation.of_effect or ""]
    original.standing, original.offset_at = False, work.now


async def not_yet(  # noqa: C901 - one decision; its order is what has to be read
    work: LockedCase,
    effect: Effect,
    offer: Offer,
    settlement: Settlement,
    *,
    settle_only: bool,
    pause: Hold | None = None,
) -> None:
    """Failed, unknown or acknowledged: what follows, by what the partner offers and the step declares."""
    step = work.process.steps.get(effect.step)
    effect.error = _error(settlement)
    asked = effect.outcome == "unknown" and effect.ruled_out_by is None
    if settlement.outcome == "acknowledged":
        if effect.outcome != "acknowledged":
            effect.answer_by, effect.since = work.now + (step.answer_within if step else POLL_EVERY), work.now
            _say(work, effect, "effect.acknowledged")
        effect.outcome, effect.error = "acknowledged", None
    if effect.outcome == "acknowledged" and (settlement.outcome == "acknowledged" or not settlement.disproved):
        if effect.answer_by is not None and effect.answer_by <= work.now:
            await _give_up_waiting(work, effect, settle_only=settle_only)
            return
        effect.state = "waiting"  # also where asking failed
        effect.next_attempt_at = _next_poll(work, effect) if offer.probe else effect.answer_by
        return
    # What a repeated request is refused for says nothing of the request before, whose outcome stays unknown.
    still_unknown = asked and not settlement.disproved
    failed = settlement.outcome == "failed" and not still_unknown
    if not failed:
        effect.outcome = "unknown"
        if settlement.sent and settlement.outcome == "unknown":
            effect.maybe_sent_until, effect.ruled_out_by = work.now, None
        _say(work, effect, "effect.outcome_unknown", code=settlement.code, attempt=effect.attempt_count)
    else:
        effect.outcome = "failed"
        _say(work, effect, "effect.failed", code=settlement.code, error_class=settlement.error_class or "")
        if settle_only:
            void_effect(work, effect)
            return
    can_learn = failed or offer.probe or offer.idempotent
    if not can_learn and not settlement.cause and _goes_on_without(effect, step, settle_only=settle_only):
        await _exhaust(work, effect, step, "unknown", by_declaration=True)
        return
    if settlement.cause or not can_learn:
        owner = ENGINEERING if settlement.cause == "code_error" else effect.recovery_owner
        _block(work, effect, cause=settlement.cause or "unknown", owner=owner)
        return
    if settlement.code == NOT_FOUND_YET and effect.maybe_sent_until is not None:
        effect.state, effect.since = "retrying", work.now
        effect.next_attempt_at = effect.maybe_sent_until + offer.settling
        return
    waits = step.retry.waits if step else ()
    transient = settlement.outcome == "unknown" or settlement.error_class == "transient"
    if transient and effect.burst < len(waits):
        wait = max(waits[effect.burst], settlement.retry_after or timedelta(0))
        effect.burst += 1
        effect.state, effect.since = "retrying", work.now
        effect.next_attempt_at = work.now + wait
        return
    if transient and pause is not None and pause.state in {"paused", "probing"}:
        hold_up(work, effect, pause)  # the partner is away, and everybody knows: nothing here to decide
        return
    cause = "exhausted" if transient else settlement.error_class or "exhausted"
    await _exhaust(work, effect, step, cause, by_declaration=not settle_only and effect.direction == "do")


def _goes_on_without(effect: Effect, step: Step[Any] | None, *, settle_only: bool) -> bool:
    """Whoever declares that the story does without it, and that nobody need take it back, need not know either."""
    optional = step is not None and step.exhausted == "proceed" and step.undo is NONE_NEEDED
    return optional and effect.direction == "do" and not settle_only


async def _exhaust(
    work: LockedCase, effect: Effect, step: Step[Any] | None, cause: str, *, by_declaration: bool
) -> None:
    """No attempt is left: block, undo the operation, or go on without, as the step declares."""
    exhausted = step.exhausted if step and by_declaration else "block"
    if exhausted == "proceed":
        effect.state, effect.decision = "settled", "given_up"
        effect.settled_at = effect.since = work.now
        effect.cause, effect.next_attempt_at = cause, None
        _say(work, effect, "effect.given_up")
        return
    operation = work.operation
    # Where earlier work was taken back already, there is nothing to lead back to: its owner decides.
    undone = exhausted == "undo" and operation and not operation.undoes and story_of(work.process, operation)
    _block(work, effect, cause=cause, owner=effect.recovery_owner, decides=not undone)
    if undone and operation:
        title = effect_title(work.process, effect.step, "do")
        reason = f"{title}: no attempt is left, and the step declares that the operation is undone then."
        request = Request(actor=SYSTEM, role=None, reason=reason, traceparent=operation.traceparent)
        await accept_undo(work, operation, request)


def _block(work: LockedCase, effect: Effect, *, cause: str, owner: str, decides: bool = True) -> None:
    news = decides and (effect.state, effect.cause, effect.recovery_owner) != ("blocked", cause, owner)
    effect.state, effect.cause, effect.recovery_owner = "blocked", cause, owner
    effect.since, effect.next_attempt_at = work.now, None
    _say(work, effect, "effect.blocked", cause=cause, recovery_owner=owner)
    if news:
        title = effect_title(work.process, effect.step, "undo" if effect.direction == "undo" else "do")
        words = {"title": title, "cause": cause, "recovery_owner": owner}
        work.mail("case_blocked", owner, sentence("effect.blocked", words))


async def _block_answer(work: LockedCase, effect: Effect, *, cause: str, owner: str) -> StepAnswer:
    _block(work, effect, cause=cause, owner=owner)
    if effect.error is None or cause == "invalid":
        message = "The request has changed since it was first sent." if cause == "invalid" else cause
        effect.error = {"class": "invalid" if cause == "invalid" else None, "code": cause, "message": message}
    await finish_retry(work, effect)
    work.touch()
    return answer(work, effect)


async def block_unread(work: LockedCase, effect: Effect, message: str) -> None:
    """Our code can't read what the partner called back: engineering's matter; `retry` reads it again."""
    _block(work, effect, cause="code_error", owner=ENGINEERING)
    effect.error = {"class": None, "code": "callback_unread", "message": message}
    await finish_retry(work, effect)


async def finish_retry(work: LockedCase, effect: Effect) -> None:
    """Its attempt has an outcome: close the `retry`, and those before it that nobody had got round to."""
    if effect.retry_by is not None:
        for helper in await work.helpers_open():
            if helper.name == "retry" and helper.effect_key == effect.key:
                work.finish_helper(helper)
                work.touch()
        effect.retry_by = None


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


def _error(settlement: Settlement) -> dict[str, Any] | None:
    if settlement.outcome in {"succeeded", "not_needed", "acknowledged"}:
        return None
    return {"class": settlement.error_class, "code": settlement.code, "message": settlement.message}


def _say(work: LockedCase, effect: Effect, entry_type: str, **data: Any) -> None:
    title = effect_title(work.process, effect.step, "undo" if effect.direction == "undo" else "do")
    which = {"item": effect.item} if effect.item is not None else {}
    work.entry(entry_type, effect=effect, title=title, partner=effect.partner, **which, **data)


def of_failure(answer: PartnerFailed) -> Settlement:
    """A partner's refusal as an outcome."""
    return Settlement(
        outcome="failed",
        error_class=answer.error_class,
        code=answer.code,
        message=answer.message,
        retry_after=answer.retry_after,
    )


async def attempts_of(session: AsyncSession, effect_keys: list[str]) -> list[Attempt]:
    """Every attempt at these effects, in order."""
    found = await session.scalars(
        select(Attempt).where(Attempt.effect_key.in_(effect_keys)).order_by(Attempt.effect_key, Attempt.number)
    )
    return list(found)


def rule_out(work: LockedCase, effect: Effect, operation: Operation) -> None:
    """Somebody stated that the unknown outcome did not happen; their word stands beside it."""
    effect.ruled_out_by = operation.id
    _say(work, effect, "effect.ruled_out", by=action_title(work, operation))


def retry_now(work: LockedCase, effect: Effect, operation: Operation) -> None:
    """Make the next attempt due, with a fresh burst."""
    due_again(work, effect)
    effect.retry_by = operation.id


def leave_out(work: LockedCase, effect: Effect, operation: Operation) -> None:
    """Record that a person decided to go on without it."""
    if is_questioned(effect):
        _left_standing(work, effect, operation)
        return
    _decide(work, effect, operation, "skipped")
    _say(work, effect, "effect.skipped")


def mark_done(work: LockedCase, effect: Effect, operation: Operation, result: dict[str, Any]) -> None:
    """Record that it was done by hand, with the result that the story needs."""
    was_offset = effect.offset_at is not None
    if is_questioned(effect):
        effect.error = None
    _decide(work, effect, operation, "marked_done")
    effect.result = result
    _say(work, effect, "effect.marked_done", result=result)
    if effect.direction == "undo":
        _mark_offset(work, effect)
    else:
        effect.standing = not was_offset


def _decide(work: LockedCase, effect: Effect, operation: Operation, decision: str) -> None:
    effect.state, effect.decision, effect.decided_by = "settled", decision, operation.id
    effect.settled_at = effect.since = work.now
    effect.next_attempt_at = effect.cause = effect.answer_by = effect.paused_by = None
