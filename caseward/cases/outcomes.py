"""Outcomes: what an attempt, a callback or the word of a person makes of an effect, and what follows from it.

News only moves an effect forward; what people decided stands beside an outcome, never over it. All of it happens under
the case's lock, in the transaction of whoever brings the news.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from caseward.cases.attached import tell_verdict
from caseward.cases.locked import LockedCase, is_questioned, story_of
from caseward.cases.operations import (
    Request,
    accept_undo,
    action_title,
    due_again,
    open_compensation,
    open_question,
    void_effect,
)
from caseward.cases.pauses import Hold, hold_up
from caseward.db.tables import Effect, Operation
from caseward.entries import sentence
from caseward.errors import PartnerFailed
from caseward.offsets import needs_offset
from caseward.partner import Offer
from caseward.process import ENGINEERING, NONE_NEEDED, Step
from caseward.situation import LEFT_OUT, SYSTEM, Outcome, effect_title

NOT_FOUND_YET = "not_found_yet"  # the partner knows nothing of the key, which proves nothing so soon
POLL_EVERY = timedelta(seconds=5)  # until a partner that acknowledged is asked again, where it can be
POLL_SHARE = 10  # or once it has taken a tenth longer, whichever is later: an hour means some 50 questions, a day 80


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


def of_failure(answer: PartnerFailed) -> Settlement:
    """A partner's refusal as an outcome."""
    return Settlement(
        outcome="failed",
        error_class=answer.error_class,
        code=answer.code,
        message=answer.message,
        retry_after=answer.retry_after,
    )


def unproved(settlement: Settlement) -> Settlement:
    """A refusal that says nothing of other requests under the same key."""
    return replace(settlement, disproved=False)


def error_of(settlement: Settlement) -> dict[str, Any] | None:
    """What is kept of a failure, as it is shown."""
    if settlement.outcome in {"succeeded", "not_needed", "acknowledged"}:
        return None
    return {"class": settlement.error_class, "code": settlement.code, "message": settlement.message}


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
        effect.outcome, effect.error = "failed", error_of(settlement)
        say(work, effect, "effect.failed", code=settlement.code, error_class=settlement.error_class or "")


def hear_of_the_voided(work: LockedCase, effect: Effect, attempt_number: int, settlement: Settlement) -> None:
    """The attempt that was under way when the case was taken over did nothing after all."""
    left_open = effect.decision == "voided" and effect.outcome == "unknown"
    # Only of a first attempt it is sure that none before it did it.
    if left_open and settlement.outcome == "failed" and effect.attempt_count == attempt_number == 1:
        effect.outcome, effect.error = "failed", error_of(settlement)
        say(work, effect, "effect.failed", code=settlement.code, error_class=settlement.error_class or "")


async def _ask_owner(work: LockedCase, effect: Effect, cause: str, **told: Any) -> None:
    declared = work.process.steps.get(effect.step)
    owner = work.process.owner_of(declared) if declared else ENGINEERING
    say(work, effect, f"effect.{cause}", recovery_owner=owner, **told)
    if is_questioned(effect) or effect.direction == "undo" or (declared and declared.undo is NONE_NEEDED):
        return  # asked already; or nothing that anybody would want to take back
    block(work, effect, cause=cause, owner=owner)
    message = {
        "happened_twice": "It succeeded twice, with different answers. The timeline has both.",
        "contradicted": "The partner reported success, and later a failure.",
    }[cause]
    effect.error = {"class": None, "code": cause, "message": message}
    await open_question(work, effect)


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
    say(work, effect, "effect.landed_late" if late else "effect.succeeded", result=settlement.result)
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
    effect.error = error_of(settlement)
    asked = effect.outcome == "unknown" and effect.ruled_out_by is None
    if settlement.outcome == "acknowledged":
        if effect.outcome != "acknowledged":
            effect.answer_by, effect.since = work.now + (step.answer_within if step else POLL_EVERY), work.now
            say(work, effect, "effect.acknowledged")
        effect.outcome, effect.error = "acknowledged", None
    if effect.outcome == "acknowledged" and (settlement.outcome == "acknowledged" or not settlement.disproved):
        if effect.answer_by is not None and effect.answer_by <= work.now:
            await give_up_waiting(work, effect, settle_only=settle_only)
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
        say(work, effect, "effect.outcome_unknown", code=settlement.code, attempt=effect.attempt_count)
    else:
        effect.outcome = "failed"
        say(work, effect, "effect.failed", code=settlement.code, error_class=settlement.error_class or "")
        if settle_only:
            void_effect(work, effect)
            return
    can_learn = failed or offer.probe or offer.idempotent
    if not can_learn and not settlement.cause and goes_on_without(effect, step, settle_only=settle_only):
        await exhaust(work, effect, step, "unknown", by_declaration=True)
        return
    if settlement.cause or not can_learn:
        owner = ENGINEERING if settlement.cause == "code_error" else effect.recovery_owner
        block(work, effect, cause=settlement.cause or "unknown", owner=owner)
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
    await exhaust(work, effect, step, cause, by_declaration=not settle_only and effect.direction == "do")


def _next_poll(work: LockedCase, effect: Effect) -> datetime:
    """When the partner that acknowledged is asked again: the longer it takes, the more rarely."""
    step = work.process.steps.get(effect.step)
    if step is None or effect.answer_by is None:
        return work.now + POLL_EVERY
    taken = work.now - (effect.answer_by - step.answer_within)
    return min(work.now + max(POLL_EVERY, taken / POLL_SHARE), effect.answer_by)


async def give_up_waiting(work: LockedCase, effect: Effect, *, settle_only: bool) -> None:
    """The time of a partner that acknowledged is over."""
    effect.error = {"class": None, "code": "no_answer", "message": "The partner took it and never answered."}
    by_declaration = not settle_only and effect.direction == "do"
    await exhaust(work, effect, work.process.steps.get(effect.step), "no_answer", by_declaration=by_declaration)


def goes_on_without(effect: Effect, step: Step[Any] | None, *, settle_only: bool) -> bool:
    """Whoever declares that the story does without it, and that nobody need take it back, need not know either."""
    optional = step is not None and step.exhausted == "proceed" and step.undo is NONE_NEEDED
    return optional and effect.direction == "do" and not settle_only


async def exhaust(
    work: LockedCase, effect: Effect, step: Step[Any] | None, cause: str, *, by_declaration: bool
) -> None:
    """No attempt is left: block, undo the operation, or go on without, as the step declares."""
    exhausted = step.exhausted if step and by_declaration else "block"
    if exhausted == "proceed":
        effect.state, effect.decision = "settled", "given_up"
        effect.settled_at = effect.since = work.now
        effect.cause, effect.next_attempt_at = cause, None
        say(work, effect, "effect.given_up")
        return
    operation = work.operation
    # Where earlier work was taken back already, there is nothing to lead back to: its owner decides.
    undone = exhausted == "undo" and operation and not operation.undoes and story_of(work.process, operation)
    block(work, effect, cause=cause, owner=effect.recovery_owner, decides=not undone)
    if undone and operation:
        title = effect_title(work.process, effect.step, "do")
        reason = f"{title}: no attempt is left, and the step declares that the operation is undone then."
        request = Request(actor=SYSTEM, role=None, reason=reason, traceparent=operation.traceparent)
        await accept_undo(work, operation, request)


def block(work: LockedCase, effect: Effect, *, cause: str, owner: str, decides: bool = True) -> None:
    """It can't go on, and its owner decides, who hears of it by mail the first time."""
    news = decides and (effect.state, effect.cause, effect.recovery_owner) != ("blocked", cause, owner)
    effect.state, effect.cause, effect.recovery_owner = "blocked", cause, owner
    effect.since, effect.next_attempt_at = work.now, None
    say(work, effect, "effect.blocked", cause=cause, recovery_owner=owner)
    if news:
        title = effect_title(work.process, effect.step, "undo" if effect.direction == "undo" else "do")
        words = {"title": title, "cause": cause, "recovery_owner": owner}
        work.mail("case_blocked", owner, sentence("effect.blocked", words))


async def block_unread(work: LockedCase, effect: Effect, message: str) -> None:
    """Our code can't read what the partner called back: engineering's matter; `retry` reads it again."""
    block(work, effect, cause="code_error", owner=ENGINEERING)
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


def rule_out(work: LockedCase, effect: Effect, operation: Operation) -> None:
    """Somebody stated that the unknown outcome did not happen; their word stands beside it."""
    effect.ruled_out_by = operation.id
    say(work, effect, "effect.ruled_out", by=action_title(work, operation))


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
    say(work, effect, "effect.skipped")


def _left_standing(work: LockedCase, effect: Effect, operation: Operation) -> None:
    """Whoever had to look has looked: what is known of it stays as it is."""
    effect.state, effect.decided_by, effect.cause, effect.error = "settled", operation.id, None, None
    effect.since = work.now
    say(work, effect, "effect.left_standing")


def mark_done(work: LockedCase, effect: Effect, operation: Operation, result: dict[str, Any]) -> None:
    """Record that it was done by hand, with the result that the story needs."""
    was_offset = effect.offset_at is not None
    if is_questioned(effect):
        effect.error = None
    _decide(work, effect, operation, "marked_done")
    effect.result = result
    say(work, effect, "effect.marked_done", result=result)
    if effect.direction == "undo":
        _mark_offset(work, effect)
    else:
        effect.standing = not was_offset


def _decide(work: LockedCase, effect: Effect, operation: Operation, decision: str) -> None:
    effect.state, effect.decision, effect.decided_by = "settled", decision, operation.id
    effect.settled_at = effect.since = work.now
    effect.next_attempt_at = effect.cause = effect.answer_by = effect.paused_by = None


def say(work: LockedCase, effect: Effect, entry_type: str, **data: Any) -> None:
    """Write into the timeline what became of it."""
    title = effect_title(work.process, effect.step, "undo" if effect.direction == "undo" else "do")
    which = {"item": effect.item} if effect.item is not None else {}
    work.entry(entry_type, effect=effect, title=title, partner=effect.partner, **which, **data)
